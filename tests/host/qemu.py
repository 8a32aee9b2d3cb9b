# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU without libvirt."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.host.namespace import require_private_host

_FIRST_VNC_PORT = 5900


class Qemu:
    """A QEMU that was started by hand, and its monitor."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: object) -> Any:
        """Have the monitor execute a command and give back its answer."""
        requests, answers = self.process.stdin, self.process.stdout
        if requests is None or answers is None:
            raise TypeError("QEMU was started without pipes")
        requests.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        requests.flush()
        for answer in map(json.loads, answers):
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise RuntimeError(f"{command}: QEMU has ended")


@contextmanager
def qemu(*arguments: str) -> Iterator[Qemu]:
    """Run a QEMU, its CPUs stopped, with nothing in it but what is asked for."""
    require_private_host()
    bare = ("-nodefaults", "-no-user-config", "-display", "none", "-S", "-qmp", "stdio")
    process = subprocess.Popen(
        ["qemu-system-x86_64", *bare, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Qemu(process)
    finally:
        process.kill()
        process.communicate()


@contextmanager
def encrypted_console(
    pki: Path, port: int, password: str, *, verify_peer: bool = False
) -> Iterator[Qemu]:
    """Run a QEMU with a VNC console at 127.0.0.1 that wants TLS and a password.

    `pki` has the server's certificate; with `verify_peer`, a client must show one too.
    """
    yes_no = "yes" if verify_peer else "no"
    credentials = f"tls-creds-x509,id=tls,endpoint=server,dir={pki},verify-peer={yes_no}"
    address = f"127.0.0.1:{port - _FIRST_VNC_PORT},password=on,tls-creds=tls"
    with qemu("-vga", "std", "-object", credentials, "-vnc", address) as server:
        server.execute("set_password", protocol="vnc", password=password)
        yield server

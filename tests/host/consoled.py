# SPDX-License-Identifier: GPL-2.0-or-later
"""The console service without systemd as process 1, and the accounts of those who ask it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.host.command import run
from tests.host.namespace import require_private_host

SOCKET = Path("/run/virt-warden/console.sock")
_ATTEMPTS = Path("/run/virt-warden/console-attempts")
_PATIENCE_SECONDS = 20
_BETWEEN_LOOKS_SECONDS = 0.01


@contextmanager
def console_service() -> Iterator[Path]:
    """Accept connections as virt-warden-console.socket does; gives the socket's path."""
    require_private_host()
    SOCKET.parent.mkdir(mode=0o711, exist_ok=True)
    command = ("/usr/sbin/virt-warden", "console", "--serve")
    activate = ("systemd-socket-activate", "--accept", "--inetd", f"--listen={SOCKET}")
    service = subprocess.Popen(
        [*activate, *command], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not SOCKET.is_socket():
            assert time.monotonic() < deadline, "the console service does not listen"
            time.sleep(_BETWEEN_LOOKS_SECONDS)
        SOCKET.chmod(0o666)
        yield SOCKET
    finally:
        service.kill()
        service.wait()
        SOCKET.unlink(missing_ok=True)
        run("rm", "-rf", str(_ATTEMPTS))


def kill_services() -> None:
    """End each process that serves an operator, as the kernel does for want of memory."""
    for word in run("pgrep", "-f", "virt-warden console --serve").stdout.split():
        command = Path(f"/proc/{word}/cmdline").read_bytes().split(b"\0")
        if b"systemd-socket-activate" not in command[0]:
            os.kill(int(word), signal.SIGKILL)


@contextmanager
def account(name: str, password: str, *groups: str) -> Iterator[str]:
    """A person's account, with a password that pam_unix knows."""
    require_private_host()
    for group in groups:
        run("groupadd", "--force", group)
    run("useradd", "--create-home", "--groups", ",".join(groups), name)
    run("chpasswd", stdin=f"{name}:{password}\n")
    try:
        yield name
    finally:
        run("userdel", "--remove", "--force", name)
        for group in groups:
            run("groupdel", group, check=False)


def forget_attempts() -> None:
    """As an admin does for somebody who mistyped too often."""
    run("rm", "-rf", str(_ATTEMPTS))

# SPDX-License-Identifier: GPL-2.0-or-later
"""virt-warden.service as systemd would run it, with what its unit leaves it of root's power."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.host.namespace import CHECKOUT, require_private_host

_UNIT = CHECKOUT / "packaging" / "systemd" / "virt-warden.service"
_READY_SECONDS = 20
_STOP_SECONDS = 60


class Service:
    """The running service."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Its first process."""
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send its first process a signal."""
        self._process.send_signal(number)

    def children(self) -> list[int]:
        """The processes that the first one has made and that are there."""
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(word) for word in listed.split()]

    def wait(self) -> int:
        """Wait until the first process has ended; its exit code."""
        return self._process.wait(_STOP_SECONDS)

    def stop(self) -> int:
        """Stop it as systemd does; the exit code."""
        if self._process.poll() is None:
            self._process.terminate()
        return self.wait()


@contextmanager
def service() -> Iterator[Service]:
    """Run the installed service; it is ready when this yields, and gone afterwards."""
    require_private_host()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("")  # a name of its own: a killed one's may be held for a moment
        systemd.settimeout(_READY_SECONDS)
        running = Service(_spawn(f"@{systemd.getsockname()[1:].decode()}"))
        try:
            said = systemd.recv(4096)
            if said.startswith(b"EXTEND_TIMEOUT_USEC="):
                said = systemd.recv(4096)
            assert said == b"READY=1"
            yield running
        finally:
            try:
                if running.stop() == 0:
                    assert systemd.recv(4096) == b"STOPPING=1"
            finally:
                running.signal(signal.SIGKILL)


def unit() -> dict[str, list[str]]:
    """What the unit's [Service] section says; each key with all of its values."""
    values: dict[str, list[str]] = {}
    section = ""
    for line in _UNIT.read_text().splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and line and not line.startswith("#"):
            key, _, value = line.partition("=")
            values.setdefault(key, []).append(value)
    return values


def _spawn(notify_socket: str) -> subprocess.Popen[bytes]:
    capabilities = [
        word.lower().removeprefix("cap_")
        for value in unit()["CapabilityBoundingSet"]
        for word in value.split()
    ]
    bounds = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    (command,) = unit()["ExecStart"]
    return subprocess.Popen(
        ["/usr/bin/setpriv", "--bounding-set", bounds, "--no-new-privs", *command.split()],
        env={"PATH": os.environ["PATH"], "NOTIFY_SOCKET": notify_socket},
        cwd="/",
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )

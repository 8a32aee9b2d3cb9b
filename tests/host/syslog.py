# SPDX-License-Identifier: GPL-2.0-or-later
"""A system log that a test can read: whatever a process sends to /dev/log."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.host.namespace import require_private_host

_DEV_LOG = Path("/dev/log")
_LONGEST_LINE = 65536


class Syslog:
    """The lines that arrived, as they were sent: `<PRIORITY>DATE TAG: MESSAGE`."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._arrived = threading.Condition()
        self._lines: list[str] = []

    def lines(self) -> list[str]:
        """Every line so far."""
        with self._arrived:
            return list(self._lines)

    def clear(self) -> None:
        """Forget every line so far."""
        with self._arrived:
            self._lines.clear()

    def wait_for(self, substring: str, timeout: float = 5) -> str:
        """Give back the first line with `substring` in it, waiting for it if need be.

        Raises TimeoutError, with the lines that came instead.
        """

        def found() -> str | None:
            return next((line for line in self._lines if substring in line), None)

        with self._arrived:
            line = self._arrived.wait_for(found, timeout)
            if line is None:
                came = "\n".join(self._lines) or "nothing"
                raise TimeoutError(f"no {substring!r} in the log after {timeout} s, but:\n{came}")
            return line

    def collect(self) -> None:
        """Take lines until the socket is shut down."""
        while datagram := self._listener.recv(_LONGEST_LINE):
            with self._arrived:
                self._lines.append(datagram.decode(errors="replace").rstrip("\0\n"))
                self._arrived.notify_all()


@contextmanager
def syslog_socket() -> Iterator[Syslog]:
    """Listen on /dev/log."""
    require_private_host()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(_DEV_LOG))
        _DEV_LOG.chmod(0o666)
        syslog = Syslog(listener)
        collector = threading.Thread(target=syslog.collect, name="syslog")
        collector.start()
        try:
            yield syslog
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            collector.join()
            _DEV_LOG.unlink()

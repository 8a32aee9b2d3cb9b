# SPDX-License-Identifier: GPL-2.0-or-later
"""A viewer's connection to a console. A host with a slash is a Unix socket; its port is ignored."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

_TIMEOUT_SECONDS = 5


class Connection:
    """A connection to a server that may be hostile; all its answers must come within `seconds`."""

    def __init__(self, connected: socket.socket, seconds: float) -> None:
        self._socket = connected
        self._deadline = time.monotonic() + seconds

    def read(self, length: int) -> bytes:
        content = b""
        while len(content) < length:
            # A timeout of 0 would not wait at all, and raise another error.
            self._socket.settimeout(max(self._deadline - time.monotonic(), 0.001))
            more = self._socket.recv(length - len(content))
            if not more:
                raise EOFError("it hung up")
            content += more
        return content

    def send(self, content: bytes) -> None:
        self._socket.sendall(content)

    @contextmanager
    def secured(self, context: ssl.SSLContext) -> Iterator[Connection]:
        left = max(self._deadline - time.monotonic(), 0.001)
        self._socket.settimeout(left)
        with context.wrap_socket(self._socket) as wrapped:
            yield Connection(wrapped, left)


@contextmanager
def connected(host: str, port: int) -> Iterator[Connection]:
    """Connect, for a few seconds. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    is_path = "/" in host
    with socket.socket(socket.AF_UNIX if is_path else family, socket.SOCK_STREAM) as opened:
        opened.settimeout(_TIMEOUT_SECONDS)
        opened.connect(host if is_path else (host, port))
        yield Connection(opened, _TIMEOUT_SECONDS)


def unchecked() -> ssl.SSLContext:
    """TLS with whatever certificate the server shows."""
    import ssl  # 10 ms, only where it is needed

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context

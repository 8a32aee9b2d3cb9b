# SPDX-License-Identifier: GPL-2.0-or-later
"""A small WebSocket client (RFC 6455), which carries bytes as a socket does."""

from __future__ import annotations

import socket
import struct

_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
_FINAL_BINARY = 0x82
_MASKED = 0x80
_LONGEST_SHORT = 125
_TWO_BYTES_FOLLOW = 126
_NO_MASK = bytes(4)


class WebSocket:
    """A connection whose server has agreed to WebSocket; raises ConnectionError where not."""

    def __init__(self, connection: socket.socket, host: str) -> None:
        self._connection = connection
        self._payload = b""
        request = (
            "GET / HTTP/1.1",
            f"Host: {host}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {_KEY}",
            "Sec-WebSocket-Protocol: binary",
        )
        connection.sendall("\r\n".join((*request, "", "")).encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += self._read(1)
        if b" 101 " not in answer.split(b"\r\n")[0]:
            raise ConnectionError(answer.decode(errors="replace"))

    def recv(self, length: int) -> bytes:
        """Up to `length` bytes of what the server sent."""
        while not self._payload:
            self._payload = self._next_payload()
        taken, self._payload = self._payload[:length], self._payload[length:]
        return taken

    def sendall(self, data: bytes) -> None:
        """Send up to 125 bytes, as one frame; a client must mask it, if only by zeros."""
        header = bytes([_FINAL_BINARY, _MASKED | len(data)])
        self._connection.sendall(header + _NO_MASK + data)

    def _next_payload(self) -> bytes:
        _, length = self._read(2)
        if length > _LONGEST_SHORT:
            form = "!H" if length == _TWO_BYTES_FOLLOW else "!Q"
            (length,) = struct.unpack(form, self._read(struct.calcsize(form)))
        return self._read(length)

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            piece = self._connection.recv(length - len(data))
            if not piece:
                raise ConnectionError("the server closed the connection")
            data += piece
        return data

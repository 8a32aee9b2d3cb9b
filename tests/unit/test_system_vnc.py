# SPDX-License-Identifier: GPL-2.0-or-later
"""Connecting to a VNC server that may be anybody's."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from virtwarden.errors import HostError
from virtwarden.system import viewer, vnc

_PATIENCE_SECONDS = 0.3


@contextmanager
def server(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that talks like this to its only visitor; its port."""

    def serve() -> None:
        visitor, _ = listener.accept()
        with visitor:
            try:
                talk(visitor)
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


def test_what_is_offered_is_told() -> None:
    def talk(visitor: socket.socket) -> None:
        visitor.sendall(b"RFB 003.008\n\x01\x13")
        visitor.recv(100)
        visitor.sendall(b"\x00\x02\x00\x02\x00\x00\x01\x05\x00\x00\x01\x04")
        visitor.recv(100)

    with server(talk) as port:
        assert vnc.offer("127.0.0.1", port) == vnc.Offer((19,), (261, 260))


def test_a_server_that_lets_one_wait_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it sends a byte: `status` and the hook must come to an end."""
    monkeypatch.setattr(viewer, "_TIMEOUT_SECONDS", _PATIENCE_SECONDS)
    hung_up = threading.Event()

    def talk(visitor: socket.socket) -> None:
        visitor.sendall(b"RFB 003.008\n\xff")
        while not hung_up.wait(_PATIENCE_SECONDS / 10):
            visitor.sendall(b"\x01")

    with server(talk) as port:
        began = time.monotonic()
        with pytest.raises(HostError, match="does not answer"):
            vnc.offer("127.0.0.1", port)
        # 255 types would take it 25 times as long.
        assert time.monotonic() - began < 10 * _PATIENCE_SECONDS
        hung_up.set()


def test_nobody_there_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(HostError, match=f"127.0.0.1 port {port} does not answer"):
        vnc.offer("127.0.0.1", port)


@pytest.mark.parametrize(
    ("answer", "plain"),
    [(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", True), (b"HTTP/1.1 400 No\r\n", False)],
)
def test_a_websocket_without_tls_is_told(answer: bytes, plain: bool) -> None:
    def talk(visitor: socket.socket) -> None:
        visitor.recv(1000)
        visitor.sendall(answer)

    with server(talk) as port:
        assert vnc.takes_plain_websocket("127.0.0.1", port) is plain

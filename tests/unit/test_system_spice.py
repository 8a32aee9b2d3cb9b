# SPDX-License-Identifier: GPL-2.0-or-later
"""Connecting to a SPICE server that may be anybody's."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from virtwarden.errors import HostError
from virtwarden.system import spice, viewer

_PATIENCE_SECONDS = 0.3
_FORM = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
_KEY = rsa.generate_private_key(65537, 1024).public_key().public_bytes(*_FORM)  # noqa: S505 - SPICE's
_NO_KEY = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(*_FORM)
_PERMISSION_DENIED, _BAD_CONNECTION_ID, _NEED_SECURED = 7, 8, 5


@contextmanager
def server(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that talks like this to both of its visitors; its port."""

    def serve() -> None:
        for _ in range(2):
            visitor, _ = listener.accept()
            with visitor, suppress(OSError):
                talk(visitor)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


def reply(error: int = 0, key: bytes = _KEY, magic: bytes = b"REDQ", size: int = 0) -> bytes:
    body = struct.pack("<I", error) + key.ljust(162, b"\0") + struct.pack("<III", 0, 0, 178)
    return struct.pack("<4sIII", magic, 2, 2, size or len(body)) + body


def plain(result: int, said: bytes = b"") -> Callable[[socket.socket], None]:
    """A server without TLS that judges every password so."""

    def talk(visitor: socket.socket) -> None:
        if visitor.recv(4, socket.MSG_PEEK) != b"REDQ":
            return
        visitor.recv(100)
        visitor.sendall(said or reply())
        visitor.recv(200)
        visitor.sendall(struct.pack("<I", result))

    return talk


@pytest.mark.parametrize(
    ("result", "asks"), [(_PERMISSION_DENIED, True), (_BAD_CONNECTION_ID, False)]
)
def test_one_without_tls_is_told_and_whether_it_lets_anybody_in(result: int, asks: bool) -> None:
    with server(plain(result)) as port:
        assert spice.offer("127.0.0.1", port) == spice.Offer(plain=True, tls=False, asks=asks)


@pytest.mark.parametrize(
    "said",
    [
        reply(magic=b"HTTP"),
        reply(size=1 << 31),
        reply(size=3),
        reply(error=_NEED_SECURED),
        reply(key=b"\0"),
        reply(key=_NO_KEY),
        b"REDQ",
    ],
)
def test_one_that_does_not_link_does_not_answer(said: bytes) -> None:
    with (
        server(plain(0, said)) as port,
        pytest.raises(HostError, match=f"127.0.0.1 port {port} does not answer"),
    ):
        spice.offer("127.0.0.1", port)


def test_one_that_lets_viewers_wait_is_waited_for_once_each_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(viewer, "_TIMEOUT_SECONDS", _PATIENCE_SECONDS)

    def drip(visitor: socket.socket) -> None:
        for _ in range(100):
            visitor.sendall(b"R")
            time.sleep(_PATIENCE_SECONDS / 10)

    with server(drip) as port:
        began = time.monotonic()
        with pytest.raises(HostError, match="does not answer"):
            spice.offer("127.0.0.1", port)
        assert time.monotonic() - began < 10 * _PATIENCE_SECONDS


def test_nobody_there_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(HostError, match="does not answer"):
        spice.offer("127.0.0.1", port)
    with pytest.raises(HostError, match="the SPICE server at /nowhere does not answer"):
        spice.offer("/nowhere", 0)

# SPDX-License-Identifier: GPL-2.0-or-later
"""A small SPICE client: whether a server answers one, and lets one in (spice-protocol, "link")."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import load_der_public_key

# A display channel is left to real viewers: the server of Debian 12 ends by SIGSEGV where one hangs
# up before it has said how it caches pictures.
MAIN, INPUTS, CURSOR = 1, 3, 4
PERMISSION_DENIED = 7

_MAGIC = b"REDQ"
_HEADER = struct.Struct("<4sIII")
_LINK = struct.Struct("<IBBIII")
# Authentication is chosen, and SPICE's own is.
_CAPABILITIES = struct.pack("<I", 0b11)
_BY_TICKET = 1
_KEY_BYTES = 162
_MESSAGE = struct.Struct("<QHII")
_MAIN_INIT = 103
_TIMEOUT_SECONDS = 10


class LoginRefusedError(Exception):
    """The server, or our own check of its certificate, refused the login."""


@dataclass(frozen=True)
class Viewer:
    """One that was let in; `session` opens further channels."""

    host: str
    port: int
    ca: Path | str | None
    password: str
    session: int
    main: socket.socket
    channels: ExitStack

    def opens(self, channel: int) -> bool:
        """Whether the server lets it open another channel, which stays open as long as it is in."""
        connection = self.channels.enter_context(_connected(self.host, self.port, self.ca, None))
        try:
            link(connection, self.password, channel, self.session)
        except LoginRefusedError:
            return False
        return True

    def is_there(self) -> bool:
        """Whether the server has not hung up on it."""
        self.main.settimeout(0.5)
        try:
            return bool(self.main.recv(1))
        except TimeoutError:
            return True
        except OSError:
            return False


@contextmanager
def viewer(
    host: str, port: int, ca: Path | str | None, password: str, hostname: str | None = None
) -> Iterator[Viewer]:
    """Log in, over TLS where there is a CA; raises LoginRefusedError.

    `hostname` is held to the certificate.
    """
    with ExitStack() as channels:
        connection = channels.enter_context(_connected(host, port, ca, hostname))
        link(connection, password)
        _, kind, size, _ = _MESSAGE.unpack(_read(connection, _MESSAGE.size))
        content = _read(connection, size)
        assert kind == _MAIN_INIT
        (session,) = struct.unpack_from("<I", content)
        yield Viewer(host, port, ca, password, session, connection, channels)


def login(host: str, port: int, ca: Path | str | None, password: str, hostname: str = "") -> None:
    """Log in as `viewer` does, and leave."""
    with viewer(host, port, ca, password, hostname or None):
        return


def link(connection: socket.socket, password: str, channel: int = MAIN, session: int = 0) -> None:
    """Open one channel, and give the password; raises LoginRefusedError."""
    body = _LINK.pack(session, channel, 0, 1, 0, _LINK.size) + _CAPABILITIES
    try:
        connection.sendall(_HEADER.pack(_MAGIC, 2, 2, len(body)) + body)
        magic, _, _, size = _HEADER.unpack(_read(connection, _HEADER.size))
        reply = _read(connection, size)
        (error,) = struct.unpack_from("<I", reply)
        if magic != _MAGIC or error:
            raise LoginRefusedError(f"the server does not link: {error}")
        key = load_der_public_key(reply[4 : 4 + _KEY_BYTES])
        assert isinstance(key, RSAPublicKey)
        sha1 = SHA1()  # noqa: S303 - the protocol's choice
        ticket = key.encrypt(password.encode() + b"\0", OAEP(MGF1(sha1), sha1, None))
        connection.sendall(struct.pack("<I", _BY_TICKET) + ticket)
        (result,) = struct.unpack("<I", _read(connection, 4))
    except (OSError, EOFError) as failure:
        raise LoginRefusedError(f"the server hung up: {failure}") from failure
    if result == PERMISSION_DENIED:
        raise LoginRefusedError("the server denies permission")
    if result:
        raise LoginRefusedError(f"the server refuses: {result}")


@contextmanager
def _connected(
    host: str, port: int, ca: Path | str | None, hostname: str | None
) -> Iterator[socket.socket]:
    family = socket.AF_UNIX if host.startswith("/") else socket.AF_INET
    with socket.socket(family) as connection:
        connection.settimeout(_TIMEOUT_SECONDS)
        connection.connect(host if family == socket.AF_UNIX else (host, port))
        if ca is None:
            yield connection
            return
        context = ssl.create_default_context(cafile=ca)
        context.check_hostname = hostname is not None
        try:
            secured = context.wrap_socket(connection, server_hostname=hostname)
        except (ssl.SSLError, ConnectionError) as failure:
            raise LoginRefusedError(str(failure)) from failure
        with secured:
            yield secured


def _read(connection: socket.socket, length: int) -> bytes:
    content = b""
    while len(content) < length:
        more = connection.recv(length - len(content))
        if not more:
            raise EOFError
        content += more
    return content

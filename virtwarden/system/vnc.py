"""What a VNC server offers a viewer before any password (RFC 6143, 7.1; VeNCrypt 0.2)."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from virtwarden.errors import HostError

VENCRYPT = 19
X509_VNC = 261
# x509 with no password, with a VNC password, with a user name, and with SASL
X509_SUBTYPES = frozenset({260, 261, 262, 264})

_VERSION = b"RFB 003.008\n"
_TIMEOUT_SECONDS = 5


@dataclass(frozen=True)
class Offer:
    """Security types, and VeNCrypt's subtypes where that is one of them."""

    types: tuple[int, ...]
    subtypes: tuple[int, ...] = ()


def offer(host: str, port: int) -> Offer:
    """Connect, read what is offered, and leave. Raises HostError where no VNC server answers."""
    try:
        with socket.create_connection((host, port), timeout=_TIMEOUT_SECONDS) as connection:
            return _negotiate(connection)
    except (OSError, EOFError) as error:
        raise HostError(f"the VNC server at {host} port {port} does not answer: {error}") from None


def _negotiate(connection: socket.socket) -> Offer:
    _read(connection, len(_VERSION))
    connection.sendall(_VERSION)
    (count,) = _read(connection, 1)
    types = tuple(_read(connection, count))
    if VENCRYPT not in types:
        return Offer(types)
    connection.sendall(bytes([VENCRYPT]))
    connection.sendall(_read(connection, 2))
    (refused,) = _read(connection, 1)
    if refused:
        return Offer(types)
    (count,) = _read(connection, 1)
    return Offer(types, struct.unpack(f">{count}I", _read(connection, 4 * count)))


def _read(connection: socket.socket, length: int) -> bytes:
    content = b""
    while len(content) < length:
        more = connection.recv(length - len(content))
        if not more:
            raise EOFError("it hung up")
        content += more
    return content

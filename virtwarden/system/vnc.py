# SPDX-License-Identifier: GPL-2.0-or-later
"""What a VNC server offers a viewer before it asks for a password (RFC 6143, 7.1; VeNCrypt 0.2).

A host with a slash in it is the path of a Unix socket; its port is ignored.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass

from virtwarden.errors import HostError
from virtwarden.system.viewer import Connection, connected, unchecked

VENCRYPT = 19
X509_VNC, X509_SASL = 261, 263
# x509 with no password, with a VNC password, with a user name, and with SASL, in the numbering of
# QEMU and gtk-vnc. 264 is SASL without x509.
X509_SUBTYPES = frozenset({260, X509_VNC, 262, X509_SASL})

_VERSION = b"RFB 003.008\n"
_UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"Sec-WebSocket-Protocol: binary\r\n\r\n"
)
_SWITCHING = b"HTTP/1.1 101"


@dataclass(frozen=True)
class Offer:
    """Security types, and VeNCrypt's subtypes where that is one of them."""

    types: tuple[int, ...]
    subtypes: tuple[int, ...] = ()


def offer(host: str, port: int) -> Offer:
    """Connect, read the offer and disconnect. Raises HostError where no VNC server answers."""
    try:
        with connected(host, port) as connection:
            return _negotiate(connection)
    except (OSError, EOFError) as error:
        where = host if "/" in host else f"{host} port {port}"
        raise HostError(f"the VNC server at {where} does not answer: {error}") from None


def takes_anyone(host: str, port: int) -> bool:
    """Whether a server that speaks TLS goes on with a viewer that shows no certificate.

    In TLS 1.3 the viewer's handshake ends before the server checks the certificate. Only what the
    server sends afterwards tells (RFC 8446, 4.4.3).
    """
    with suppress(OSError, EOFError), connected(host, port) as connection:
        subtype = next(s for s in _negotiate(connection).subtypes if s in X509_SUBTYPES)
        connection.send(struct.pack(">I", subtype))
        connection.read(1)
        with connection.secured(unchecked()) as secured:
            return len(secured.read(1)) == 1
    return False


def takes_plain_websocket(host: str, port: int) -> bool:
    """Whether a server speaks WebSocket (RFC 6455, 4.1) with a client that does not use TLS."""
    with suppress(OSError, EOFError), connected(host, port) as connection:
        connection.send(_UPGRADE % host.encode())
        return connection.read(len(_SWITCHING)) == _SWITCHING
    return False


def _negotiate(connection: Connection) -> Offer:
    connection.read(len(_VERSION))
    connection.send(_VERSION)
    (count,) = connection.read(1)
    types = tuple(connection.read(count))
    if VENCRYPT not in types:
        return Offer(types)
    connection.send(bytes([VENCRYPT]))
    connection.send(connection.read(2))
    (refused,) = connection.read(1)
    if refused:
        return Offer(types)
    (count,) = connection.read(1)
    return Offer(types, struct.unpack(f">{count}I", connection.read(4 * count)))

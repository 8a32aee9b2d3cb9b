# SPDX-License-Identifier: GPL-2.0-or-later
"""What a SPICE server answers a viewer (https://www.spice-space.org/spice-protocol.html).

A host with a slash in it is the path of a Unix socket; its port is ignored.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass

from virtwarden.errors import HostError
from virtwarden.system.viewer import Connection, connected, unchecked

_MAGIC, _MAJOR, _MINOR = b"REDQ", 2, 2
_HEADER = struct.Struct("<4sIII")
_LINK = struct.Struct("<IBBIII")
_KEY_BYTES = 162
_LONGEST_REPLY = 4096
# spice/enums.h, spice/protocol.h. A channel for input cannot be opened in a session that is not
# there: a server that lets everybody in still throws no viewer out.
_INPUTS, _NO_SESSION = 3, 0x7FFFFFFF
_BY_TICKET = 1
# A word of bits: we name the way in which we log in, which is that one.
_CAPABILITIES = struct.pack("<I", 1 << 0 | 1 << 1)
_LINKED, _PERMISSION_DENIED = 0, 7


@dataclass(frozen=True)
class Offer:
    """Whether a SPICE server answers without TLS and with it, and then asks for a password."""

    plain: bool
    tls: bool
    asks: bool


def offer(host: str, port: int) -> Offer:
    """Connect both ways, log in with an empty password, and disconnect.

    Raises HostError where no SPICE server answers.
    """
    plain, tls = (_asks(host, port, with_tls=with_tls) for with_tls in (False, True))
    if plain is None and tls is None:
        where = host if "/" in host else f"{host} port {port}"
        raise HostError(f"the SPICE server at {where} does not answer")
    return Offer(plain is not None, tls is not None, asks=False not in (plain, tls))


def _asks(host: str, port: int, *, with_tls: bool) -> bool | None:
    """Whether the server wants another password than an empty one; None where it hangs up."""
    with suppress(OSError, EOFError, ValueError), connected(host, port) as connection:
        if not with_tls:
            return _is_denied(connection)
        with connection.secured(unchecked()) as secured:
            return _is_denied(secured)
    return None


def _is_denied(connection: Connection) -> bool:
    """Raises ValueError where the server does not link."""
    ticket = _sealed(_linked(connection))
    connection.send(struct.pack("<I", _BY_TICKET) + ticket)
    (result,) = struct.unpack("<I", connection.read(4))
    return bool(result == _PERMISSION_DENIED)


def _sealed(untrusted_key: bytes) -> bytes:
    """An empty password, for the owner of this key alone. Raises ValueError where it is none."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.hashes import SHA1
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    sha1 = SHA1()  # noqa: S303 - the protocol's choice
    try:
        key = load_der_public_key(untrusted_key)
        if isinstance(key, RSAPublicKey):
            return key.encrypt(b"\0", OAEP(MGF1(sha1), sha1, None))
    except UnsupportedAlgorithm:
        pass
    raise ValueError("not a key of SPICE")


def _linked(connection: Connection) -> bytes:
    """Ask for a channel; the server's key, DER. Raises ValueError."""
    body = _LINK.pack(_NO_SESSION, _INPUTS, 0, 1, 0, _LINK.size) + _CAPABILITIES
    connection.send(_HEADER.pack(_MAGIC, _MAJOR, _MINOR, len(body)) + body)
    magic, _, _, size = _HEADER.unpack(connection.read(_HEADER.size))
    if magic != _MAGIC or not 4 + _KEY_BYTES <= size <= _LONGEST_REPLY:
        raise ValueError("not SPICE")
    reply = connection.read(size)
    (error,) = struct.unpack_from("<I", reply)
    if error != _LINKED:
        raise ValueError(f"SPICE refuses the link: {error}")
    return reply[4 : 4 + _KEY_BYTES]

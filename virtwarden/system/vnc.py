"""What a VNC server offers a viewer before any password (RFC 6143, 7.1; VeNCrypt 0.2)."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from virtwarden.errors import HostError

VENCRYPT = 19
X509_VNC = 261
# x509 with no password, with a VNC password, with a user name, and with SASL
X509_SUBTYPES = frozenset({260, 261, 262, 264})

_VERSION = b"RFB 003.008\n"
_TIMEOUT_SECONDS = 5
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
    """Connect, read what is offered, and leave. Raises HostError where no VNC server answers."""
    return _ask(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port))


def offer_on(path: str) -> Offer:
    """`offer`, of a server that listens on a Unix socket."""
    return _ask(socket.AF_UNIX, path)


def takes_plain_websocket(host: str, port: int) -> bool:
    """Whether a server speaks WebSocket (RFC 6455, 4.1) with who does not speak TLS first."""
    with suppress(OSError, EOFError), _connected(socket.AF_INET, (host, port)) as connection:
        connection.send(_UPGRADE % host.encode())
        return connection.read(len(_SWITCHING)) == _SWITCHING
    return False


class _Connection:
    """A connection to a server that may be hostile: it has this long for all that it says."""

    def __init__(self, connected: socket.socket, seconds: float) -> None:
        self._socket = connected
        self._deadline = time.monotonic() + seconds

    def read(self, length: int) -> bytes:
        content = b""
        while len(content) < length:
            # A timeout of 0 would mean not to wait, and then another error.
            self._socket.settimeout(max(self._deadline - time.monotonic(), 0.001))
            more = self._socket.recv(length - len(content))
            if not more:
                raise EOFError("it hung up")
            content += more
        return content

    def send(self, content: bytes) -> None:
        self._socket.sendall(content)


def _ask(family: socket.AddressFamily, address: tuple[str, int] | str) -> Offer:
    try:
        with _connected(family, address) as connection:
            return _negotiate(connection)
    except (OSError, EOFError) as error:
        where = address if isinstance(address, str) else "{} port {}".format(*address)
        raise HostError(f"the VNC server at {where} does not answer: {error}") from None


@contextmanager
def _connected(
    family: socket.AddressFamily, address: tuple[str, int] | str
) -> Iterator[_Connection]:
    with socket.socket(family, socket.SOCK_STREAM) as connected:
        connected.settimeout(_TIMEOUT_SECONDS)
        connected.connect(address)
        yield _Connection(connected, _TIMEOUT_SECONDS)


def _negotiate(connection: _Connection) -> Offer:
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

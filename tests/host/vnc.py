# SPDX-License-Identifier: GPL-2.0-or-later
"""A small VNC client: what a server offers, and whether it lets one in (RFC 6143, VeNCrypt).

A `host` that begins with a slash is a Unix socket, which has no port.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from cryptography.hazmat.primitives.ciphers import Cipher, modes

from tests.host import sasl
from tests.host.websocket import WebSocket

# cryptography has moved it to the first place in its release 43.
_PLACES_OF_TRIPLE_DES = (
    "cryptography.hazmat.decrepit.ciphers.algorithms",
    "cryptography.hazmat.primitives.ciphers.algorithms",
)

SECURITY_NONE = 1
SECURITY_VNC_AUTH = 2
SECURITY_VENCRYPT = 19
VENCRYPT_X509_VNC = 261
VENCRYPT_X509_SASL = 263
ACCEPTED = "accepted"
ASKS_FOR_PASSWORD = "asks for the password in the clear"

_VERSION = b"RFB 003.008\n"
_VENCRYPT_VERSION = b"\x00\x02"
_CHALLENGE_LENGTH = 16
_TIMEOUT_SECONDS = 10


class LoginRefusedError(Exception):
    """The server, or our own check of its certificate, refused the login."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Bytes(Protocol):
    """What carries the protocol."""

    def recv(self, length: int, /) -> bytes: ...

    def sendall(self, data: bytes, /) -> None: ...


class _Stream:
    """Reads and writes the protocol's few types."""

    def __init__(self, connection: _Bytes) -> None:
        self.connection = connection

    def read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            piece = self.connection.recv(length - len(data))
            if not piece:
                raise LoginRefusedError("the server closed the connection")
            data += piece
        return data

    def u8(self) -> int:
        return self.read(1)[0]

    def u32(self) -> int:
        return int.from_bytes(self.read(4), "big")

    def text(self) -> str:
        # QEMU counts the closing zero of a C string in.
        return self.read(self.u32()).decode(errors="replace").rstrip("\0")

    def write(self, data: bytes) -> None:
        self.connection.sendall(data)


def security_types(host: str, port: int = 0) -> list[int]:
    """The security types that the server offers."""
    with _connected(host, port) as stream:
        return _offered(stream)


def vencrypt_subtypes(host: str, port: int = 0) -> list[int]:
    """What the server offers inside VeNCrypt."""
    with _connected(host, port) as stream:
        _offered(stream)
        return _vencrypt(stream)


def login(
    host: str,
    port: int,
    cafile: Path | str,
    password: str,
    hostname: str | None = None,
    *,
    certificate: tuple[str, str] | None = None,
) -> str:
    """Log in by X509Vnc and give back the desktop's name; raises LoginRefusedError.

    `hostname` is held to the certificate; `certificate` is our own, with its key, for a server
    that wants to see one.
    """
    with _logged_in(host, port, cafile, password, hostname, certificate) as stream:
        return _desktop(stream)[0]


def login_by_sasl(
    host: str,
    port: int,
    cafile: Path | str,
    mechanism: str,
    steps: sasl.Steps,
    *,
    certificate: tuple[str, str] | None = None,
) -> str:
    """Log in by X509SASL and give back the desktop's name; `login` says the rest."""
    context = _tls(cafile, None)
    if certificate:
        context.load_cert_chain(*certificate)
    with _socket(host, port) as connection:
        _ask_for_x509(connection, VENCRYPT_X509_SASL)
        try:
            with context.wrap_socket(connection) as secured:
                stream = _Stream(secured)
                _answer_by_sasl(stream, mechanism, steps)
                return _desktop(stream)[0]
        except (ssl.SSLError, ConnectionError) as failure:
            raise LoginRefusedError(str(failure)) from failure


def _answer_by_sasl(stream: _Stream, mechanism: str, steps: sasl.Steps) -> None:
    """https://github.com/rfbproto/rfbproto, "SASL": a list, then messages with a closing zero."""
    offered = stream.read(stream.u32()).decode().split(",")
    if mechanism.upper() not in [name.upper() for name in offered]:
        raise LoginRefusedError(f"the server offers {offered}")
    stream.write(struct.pack("!I", len(mechanism)) + mechanism.encode())
    done = False
    answer = next(steps)
    while True:
        message = b"" if answer is None else answer + b"\0"
        stream.write(struct.pack("!I", len(message)) + message)
        length = stream.u32()
        said = stream.read(length)[:-1] if length else None
        done = bool(stream.u8())
        if done and said is None:
            break
        try:
            answer = steps.send(said or b"")
        except StopIteration:
            break
        if done:
            break
    _security_result(stream)


def screen(
    host: str, port: int, cafile: Path | str, password: str, hostname: str
) -> tuple[int, int, bytes]:
    """Log in as `login` does and look: width, height, and the pixels as RGB.

    Waits until there is anything to see: two pixels that differ (RFC 6143, 7.5 to 7.7).
    """
    with _logged_in(host, port, cafile, password, hostname, None) as stream:
        _, width, height = _desktop(stream)
        stream.write(_TRUE_COLOUR + _RAW)
        while True:
            stream.write(struct.pack("!BBHHHH", 3, 0, 0, 0, width, height))
            pixels = _update(stream, width, height)
            if len({*pixels[::4]}) > 1:
                red, green, blue = pixels[2::4], pixels[1::4], pixels[::4]
                return width, height, bytes(chain.from_iterable(zip(red, green, blue, strict=True)))


# SetPixelFormat: 32 bits, depth 24, little-endian, true colour, 8 bits each of blue, green, red
_TRUE_COLOUR = struct.pack("!BxxxBBBBHHHBBBxxx", 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
# SetEncodings: raw alone
_RAW = struct.pack("!BxHi", 2, 1, 0)
_FRAMEBUFFER_UPDATE = 0


def _update(stream: _Stream, width: int, height: int) -> bytes:
    """The whole screen, in one or several rectangles."""
    pixels = bytearray(width * height * 4)
    if stream.u8() != _FRAMEBUFFER_UPDATE:
        raise LoginRefusedError("the server sends something else than its screen")
    _, count = struct.unpack("!BH", stream.read(3))
    for _ in range(count):
        left, top, wide, high, _ = struct.unpack("!HHHHi", stream.read(12))
        for row in range(top, top + high):
            begin = 4 * (row * width + left)
            pixels[begin : begin + 4 * wide] = stream.read(4 * wide)
    return bytes(pixels)


@contextmanager
def _logged_in(
    host: str,
    port: int,
    cafile: Path | str,
    password: str,
    hostname: str | None,
    certificate: tuple[str, str] | None,
) -> Iterator[_Stream]:
    context = _tls(cafile, hostname)
    if certificate:
        context.load_cert_chain(*certificate)
    with _socket(host, port) as connection:
        _ask_for_x509(connection)
        try:
            with context.wrap_socket(connection, server_hostname=hostname) as secured:
                stream = _Stream(secured)
                _answer_challenge(stream, password)
                yield stream
        except (ssl.SSLError, ConnectionError) as failure:
            raise LoginRefusedError(str(failure)) from failure


def login_by_websocket(host: str, port: int, cafile: Path | str | None, password: str) -> str:
    """Log in through WebSocket, over TLS where there is a `cafile`; `login` says the rest."""
    with ExitStack() as open_sockets:
        connection = open_sockets.enter_context(_socket(host, port))
        try:
            if cafile:
                secured = _tls(cafile, None).wrap_socket(connection)
                connection = open_sockets.enter_context(secured)
            stream = _greeted(WebSocket(connection, host))
            _offered(stream)
            stream.write(bytes([SECURITY_VNC_AUTH]))
            _answer_challenge(stream, password)
            return _desktop(stream)[0]
        except (ssl.SSLError, ConnectionError) as failure:
            raise LoginRefusedError(str(failure)) from failure


def _tls(cafile: Path | str, hostname: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=cafile)
    context.check_hostname = hostname is not None
    return context


def _answer_challenge(stream: _Stream, password: str) -> None:
    stream.write(_des_response(password, stream.read(_CHALLENGE_LENGTH)))
    _security_result(stream)


def certificate(host: str, port: int) -> bytes:
    """The certificate, DER, that the server shows before it asks for a password."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with _socket(host, port) as connection:
        _ask_for_x509(connection)
        with context.wrap_socket(connection) as secured:
            return secured.getpeercert(binary_form=True) or b""


def _ask_for_x509(connection: socket.socket, subtype: int = VENCRYPT_X509_VNC) -> None:
    """Go as far as the moment at which TLS begins."""
    plain = _greeted(connection)
    _offered(plain)
    offered = _vencrypt(plain)
    plain.write(struct.pack("!I", subtype))
    if plain.u8() != 1:
        raise LoginRefusedError(f"the server takes {offered}, not {subtype}")


def try_plain(host: str, port: int = 0) -> dict[int, str]:
    """Ask for each security type without TLS, offered or not, and tell what the server says."""
    return {kind: _try(host, port, kind) for kind in (SECURITY_NONE, SECURITY_VNC_AUTH)}


def _try(host: str, port: int, kind: int) -> str:
    with _connected(host, port) as stream:
        try:
            offered = _offered(stream)
            stream.write(bytes([kind]))
            if kind == SECURITY_VNC_AUTH and kind in offered:
                stream.read(_CHALLENGE_LENGTH)
                return ASKS_FOR_PASSWORD
            _security_result(stream)
        except (LoginRefusedError, ConnectionError) as refusal:
            return str(refusal)
        return ACCEPTED


@contextmanager
def _connected(host: str, port: int) -> Iterator[_Stream]:
    with _socket(host, port) as connection:
        yield _greeted(connection)


@contextmanager
def _socket(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_UNIX if host.startswith("/") else socket.AF_INET
    with socket.socket(family) as connection:
        connection.settimeout(_TIMEOUT_SECONDS)
        connection.connect(host if family == socket.AF_UNIX else (host, port))
        yield connection


def _greeted(connection: _Bytes) -> _Stream:
    stream = _Stream(connection)
    stream.read(len(_VERSION))
    stream.write(_VERSION)
    return stream


def _offered(stream: _Stream) -> list[int]:
    count = stream.u8()
    if count == 0:
        raise LoginRefusedError(stream.text())
    return list(stream.read(count))


def _vencrypt(stream: _Stream) -> list[int]:
    stream.write(bytes([SECURITY_VENCRYPT]))
    stream.read(len(_VENCRYPT_VERSION))
    stream.write(_VENCRYPT_VERSION)
    if stream.u8() != 0:
        raise LoginRefusedError("the server does not take VeNCrypt 0.2")
    return [stream.u32() for _ in range(stream.u8())]


def _des_response(password: str, challenge: bytes) -> bytes:
    # VNC takes the bits of each byte of the key in the other order than DES does.
    key = bytes(int(f"{byte:08b}"[::-1], 2) for byte in password.encode()[:8].ljust(8, b"\0"))
    # DES is triple DES with one key thrice. ECB and DES are the protocol's, not our choice.
    cipher = Cipher(_triple_des(key), modes.ECB())  # noqa: S305
    encryptor = cipher.encryptor()
    return encryptor.update(challenge) + encryptor.finalize()


def _security_result(stream: _Stream) -> None:
    if stream.u32() != 0:
        raise LoginRefusedError(stream.text())


def _desktop(stream: _Stream) -> tuple[str, int, int]:
    """Come in, perhaps beside others; the desktop's name, width and height."""
    stream.write(b"\x01")
    width, height = struct.unpack("!HH", stream.read(4))
    pixel_format = 16
    stream.read(pixel_format)
    return stream.text(), width, height


def _triple_des(key: bytes) -> Any:
    for place in _PLACES_OF_TRIPLE_DES:
        with suppress(ImportError):
            return import_module(place).TripleDES(key)
    raise ImportError("cryptography has no TripleDES")

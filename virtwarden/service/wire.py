# SPDX-License-Identifier: GPL-2.0-or-later
"""How the installed hook and virt-warden.service speak with each other.

    hook                                     service
    VERSION, arguments, XML   ───────▶
                              ◀───────       OFFER     it has read all, and has done nothing yet
    TAKE                      ───────▶                 from here on the service acts, the hook waits
                              ◀───────       exit code, stdout, stderr

Each of these is a part: its length in four bytes, the highest first, then its bytes. A hook that
gets no offer in time hangs up and does the work itself; the service then reads the end of the
connection where it waits for TAKE, and does nothing. A hook that took the offer waits until the
answer is there or the connection ends: the kernel ends it when the process that answers dies, so
that nobody acts any more. So never do both act at once.

Both sides import this file: hooks/qemu.py and the modules beside it. The hook loads it by itself,
without the package around it, and libvirt waits for that: it imports nothing but what the
interpreter has in itself.
"""

import _socket
import sys
from time import monotonic

VERSION = b"virt-warden 1"
OFFER = b"offer"
TAKE = b"take"

_LENGTH_BYTES = 4
# The domain's XML is the longest part, and refused above 4 MiB.
_LONGEST_PART = 8 * 1024 * 1024
_CHUNK = 65536
# struct ucred: pid, uid, gid (unix(7), SO_PEERCRED)
_UCRED_BYTES = 12


def send(connection: _socket.socket, *parts: bytes, until: float | None = None) -> None:
    """Send parts, all at once: each send could wake who reads. Raises OSError where nobody does.

    `until`, here and below, is a time of time.monotonic(), after which TimeoutError is raised;
    without it, the connection's own timeout holds.
    """
    framed = (len(part).to_bytes(_LENGTH_BYTES, "big") + part for part in parts)
    _end_at(connection, until)
    connection.sendall(b"".join(framed))


def receive(connection: _socket.socket, until: float | None = None) -> bytes:
    """The next part. Raises EOFError where the connection ended, ValueError for what is none."""
    length = int.from_bytes(_read(connection, _LENGTH_BYTES, until), "big")
    if length > _LONGEST_PART:
        raise ValueError("not a part")
    return _read(connection, length, until)


def _read(connection: _socket.socket, length: int, until: float | None) -> bytes:
    content = bytearray()
    while len(content) < length:
        _end_at(connection, until)
        more = connection.recv(min(length - len(content), _CHUNK))
        if not more:
            raise EOFError("the connection ended")
        content += more
    return bytes(content)


def _end_at(connection: _socket.socket, until: float | None) -> None:
    """Have the next call end by then, however little each call before it waited for."""
    if until is not None:
        left = until - monotonic()
        if left <= 0:
            raise TimeoutError("the time is up")
        connection.settimeout(left)


def peer_uid(connection: _socket.socket) -> int:
    """Who is at the other end: of a listener, who called listen(2)."""
    found = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _UCRED_BYTES)
    return int.from_bytes(found[4:8], sys.byteorder)

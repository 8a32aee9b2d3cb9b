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

The hook's side is hooks/qemu.pl; this is the service's.
"""

from __future__ import annotations

import socket
import sys

VERSION = b"virt-warden 1"
OFFER = b"offer"
TAKE = b"take"

_LENGTH_BYTES = 4
# The domain's XML is the longest part, and refused above 4 MiB.
_LONGEST_PART = 8 * 1024 * 1024
_CHUNK = 65536
# struct ucred: pid, uid, gid (unix(7), SO_PEERCRED)
_UCRED_BYTES = 12


def send(connection: socket.socket, *parts: bytes) -> None:
    """Send parts, all at once: each send could wake who reads. Raises OSError where nobody does."""
    framed = (len(part).to_bytes(_LENGTH_BYTES, "big") + part for part in parts)
    connection.sendall(b"".join(framed))


def receive(connection: socket.socket) -> bytes:
    """The next part. Raises EOFError where the connection ended, ValueError for what is none."""
    length = int.from_bytes(_read(connection, _LENGTH_BYTES), "big")
    if length > _LONGEST_PART:
        raise ValueError("not a part")
    return _read(connection, length)


def _read(connection: socket.socket, length: int) -> bytes:
    content = bytearray()
    while len(content) < length:
        more = connection.recv(min(length - len(content), _CHUNK))
        if not more:
            raise EOFError("the connection ended")
        content += more
    return bytes(content)


def peer_uid(connection: socket.socket) -> int:
    """Who is at the other end: of a listener, who called listen(2)."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED_BYTES)
    return int.from_bytes(found[4:8], sys.byteorder)

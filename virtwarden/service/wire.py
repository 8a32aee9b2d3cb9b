# SPDX-License-Identifier: GPL-2.0-or-later
"""The protocol between the installed hook and virt-warden.service.

    hook                                     service
    VERSION, arguments, XML   ───────▶
                              ◀───────       OFFER     it has read all, and has done nothing yet
    TAKE                      ───────▶                 from here on the service acts, the hook waits
                              ◀───────       exit code, stdout, stderr

Each of these is a part: its length in four bytes, the highest first, then its bytes. A hook that
gets no offer in time hangs up and does the work itself. The service, which waits for TAKE, then
reads the end of the connection and does nothing. A hook that took the offer waits for the answer
or the end of the connection. Where the process that answers dies, it no longer acts, and the
kernel ends the connection. So the hook and the service never both act at once.

Both sides import this file: hooks/qemu.py and the modules beside it. The hook loads it without the
package around it, and libvirt waits for that. So this file imports only what is built into the
interpreter.
"""

import _socket
import sys
from time import monotonic

VERSION = b"virt-warden 1"
OFFER = b"offer"
TAKE = b"take"

_LENGTH_BYTES = 4
# The longest part is the domain's XML, which is refused above 4 MiB.
_LONGEST_PART = 8 * 1024 * 1024
_CHUNK = 65536
# struct ucred: pid, uid, gid (unix(7), SO_PEERCRED)
_UCRED_BYTES = 12


def send(connection: _socket.socket, *parts: bytes, until: float | None = None) -> None:
    """Send all parts in one call, since each send could wake the reader.

    `until`, here and below, is a time of time.monotonic(); after it TimeoutError is raised.
    Without it, the connection's own timeout holds. Raises OSError where nobody reads.
    """
    framed = (len(part).to_bytes(_LENGTH_BYTES, "big") + part for part in parts)
    _end_at(connection, until)
    connection.sendall(b"".join(framed))


def receive(connection: _socket.socket, until: float | None = None) -> bytes:
    """The next part. Raises EOFError where the connection ended, ValueError for what is no part."""
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
    """Have the next call on the connection end by `until`, however long the earlier calls took."""
    if until is not None:
        left = until - monotonic()
        if left <= 0:
            raise TimeoutError("the time is up")
        connection.settimeout(left)


def peer_uid(connection: _socket.socket) -> int:
    """The uid of the peer; where that is a listener, of the process that called listen(2)."""
    found = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _UCRED_BYTES)
    return int.from_bytes(found[4:8], sys.byteorder)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Netlink to nftables: which tables there are, and what the kernel tells of each change of rules.

nft and its library read all that is there before they list the names of tables: with hundreds of
tables that takes half a second.

Of a change the kernel tells which objects went or came, and at the end of the transaction, with the
new generation, the pid and the name of the process (net/netfilter/nf_tables_api.c). ebtables and
iptables are of nftables too, but for their legacy versions.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

# linux/netlink.h, linux/netfilter/nfnetlink.h
_NETLINK_NETFILTER = 12
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP = 270, 1
_NFNLGRP_NFTABLES = 7
_NFNL_SUBSYS_NFTABLES = 10
_SO_RCVBUFFORCE = 33
_REQUEST, _DUMP, _ERROR, _DONE = 0x1, 0x300, 2, 3
# struct nlmsghdr, struct nfgenmsg, struct nlattr
_HEADER, _GENERAL, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BBH"), struct.Struct("=HH")
_TYPE_OF_ATTRIBUTE = 0x3FFF
# linux/netfilter/nf_tables.h
_NEWTABLE, _GETTABLE, _DORMANT = 0, 1, 1
_NEWCHAIN, _DELCHAIN, _NEWRULE, _DELRULE, _NEWGEN = 3, 5, 6, 8, 15
_TABLE = 1  # of each object, its table's name
_TABLE_FLAGS = 2
_CHAIN_NAME, _RULE_CHAIN = 3, 2
_GEN_PID, _GEN_NAME = 2, 3
# Those of a flush of a thousand VMs' rules.
_BUFFER_BYTES = 16 * 1024 * 1024
_LONGEST_DATAGRAM = 256 * 1024
_PATIENCE_SECONDS = 10
# linux/netfilter.h
INET, IPV4, NETDEV, BRIDGE, IPV6 = 1, 2, 5, 7, 10


@dataclass(frozen=True)
class Touched:
    """An object of a transaction: its address family (NFPROTO_…), table, and chain if any."""

    family: int
    table: str
    chain: str = ""


@dataclass(frozen=True)
class Generation:
    """One transaction: whose it is, and what it touched.

    `port` is the address of the netlink socket that asked for it. `is_lost` where the kernel told
    of more than was read: then nothing is known of it.
    """

    pid: int = 0
    program: str = ""
    port: int = 0
    touched: frozenset[Touched] = frozenset()
    is_lost: bool = False

    def __str__(self) -> str:
        """The process, for the log: `nft[1234]`."""
        return f"{self.program}[{self.pid}]" if self.pid else "unknown"


@dataclass
class Events:
    """An open socket on which the kernel tells."""

    _socket: socket.socket
    _touched: set[Touched] = field(default_factory=set)

    def wait(self, seconds: float) -> bool:
        """Whether the kernel has told of anything; waits for it, but no longer than this."""
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        return bool(poller.poll(seconds * 1000))

    def read(self) -> list[Generation]:
        """The generations since the last call; does not wait."""
        found: list[Generation] = []
        with suppress(BlockingIOError):
            while True:
                found += self._read()
        return found

    def _read(self) -> list[Generation]:
        try:
            return [*self._generations(self._socket.recv(_LONGEST_DATAGRAM))]
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self._touched.clear()
            return [Generation(is_lost=True)]

    def _generations(self, datagram: bytes) -> Iterator[Generation]:
        for kind, port, body in _messages(datagram):
            if kind == _NEWGEN:
                yield _generation(port, body, frozenset(self._touched))
                self._touched.clear()
            else:
                self._touched.add(_object(kind, body))


@contextmanager
def listening() -> Iterator[Events]:
    """Listen. Raises OSError where the kernel has no nftables."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as listener:
        with suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        listener.bind((0, 0))
        listener.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NFNLGRP_NFTABLES)
        listener.setblocking(False)
        yield Events(listener)


def tables(family: int) -> frozenset[str]:
    """The names of all tables of an address family (NFPROTO_…) whose rules count.

    Raises OSError where the kernel has no nftables.
    """
    found: set[str] = set()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as asking:
        asking.settimeout(_PATIENCE_SECONDS)
        asking.bind((0, 0))
        asking.send(_asked(_GETTABLE, family))
        while True:
            datagram = asking.recv(_LONGEST_DATAGRAM)
            for kind, _, body in _messages(datagram):
                if kind == _NEWTABLE and not _is_dormant(body):
                    found.add(_text(_attributes(body, {_TABLE}).get(_TABLE, b"")))
            if _is_end(datagram):
                return frozenset(found)


def _asked(kind: int, family: int) -> bytes:
    length, flags = _HEADER.size + _GENERAL.size, _REQUEST | _DUMP
    header = _HEADER.pack(length, _NFNL_SUBSYS_NFTABLES << 8 | kind, flags, 0, 0)
    return header + _GENERAL.pack(family, 0, 0)


def _is_end(datagram: bytes) -> bool:
    """Whether a dump ends with this. Raises OSError for an error."""
    while len(datagram) >= _HEADER.size:
        length, kind, _, _, _ = _HEADER.unpack_from(datagram)
        if kind == _ERROR:
            number = -int.from_bytes(datagram[16:20], sys.byteorder, signed=True)
            raise OSError(number, os.strerror(number))
        if kind == _DONE:
            return True
        datagram = datagram[_aligned(length) :]
    return False


def _is_dormant(body: bytes) -> bool:
    flags = _attributes(body, {_TABLE_FLAGS}).get(_TABLE_FLAGS, b"")
    return bool(int.from_bytes(flags, "big") & _DORMANT)


def own_ports() -> frozenset[int]:
    """The addresses of this process's own sockets to nftables; a library has opened some."""
    found = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with suppress(OSError):  # closed meanwhile
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                found |= _port(os.dup(int(name)))
    return frozenset(found)


def _port(handle: int) -> set[int]:
    """The address of a socket to nftables; none of another socket. Closes it."""
    with socket.socket(fileno=handle) as copy:
        is_one = (copy.family, copy.proto) == (socket.AF_NETLINK, _NETLINK_NETFILTER)
        return {copy.getsockname()[0]} if is_one else set()


def _messages(datagram: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The kind, the sender's address and the body of each message about nftables."""
    while len(datagram) >= _HEADER.size:
        length, kind, _, _, port = _HEADER.unpack_from(datagram)
        if kind >> 8 == _NFNL_SUBSYS_NFTABLES:
            yield kind & 0xFF, port, datagram[_HEADER.size : length]
        datagram = datagram[_aligned(length) :]


def _generation(port: int, body: bytes, touched: frozenset[Touched]) -> Generation:
    found = _attributes(body, {_GEN_PID, _GEN_NAME})
    pid = int.from_bytes(found.get(_GEN_PID, b""), "big")
    return Generation(pid, _text(found.get(_GEN_NAME, b"")), port, touched)


def _object(kind: int, body: bytes) -> Touched:
    chain = {_NEWCHAIN: _CHAIN_NAME, _DELCHAIN: _CHAIN_NAME}.get(kind, 0)
    chain = _RULE_CHAIN if kind in (_NEWRULE, _DELRULE) else chain
    found = _attributes(body, {_TABLE, chain})
    return Touched(body[0], _text(found.get(_TABLE, b"")), _text(found.get(chain, b"")))


def _attributes(body: bytes, wanted: set[int]) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    place = _GENERAL.size
    while place + _ATTRIBUTE.size <= len(body) and len(found) < len(wanted):
        length, kind = _ATTRIBUTE.unpack_from(body, place)
        if kind & _TYPE_OF_ATTRIBUTE in wanted:
            content = body[place + _ATTRIBUTE.size : place + length]
            found[kind & _TYPE_OF_ATTRIBUTE] = content
        place += max(_aligned(length), _ATTRIBUTE.size)
    return found


def _aligned(length: int) -> int:
    return length + 3 & ~3


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")

# SPDX-License-Identifier: GPL-2.0-or-later
"""One network interface, by its index, as the kernel has it now (rtnetlink(7)).

An index never stands for another interface, as a name may, and no process of `ip` has to start.
"""

from __future__ import annotations

import socket
import struct
import sys

# linux/rtnetlink.h, linux/netlink.h, linux/if_link.h
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_NLM_F_REQUEST, _NLM_F_ACK = 1, 4
_IFLA_LINKINFO, _IFLA_INFO_DATA = 18, 2
_NLA_TYPE_MASK = 0x3FFF
_NLMSG = struct.Struct("=IHHII")
_IFINFO = struct.Struct("=BxHiII")
_ATTRIBUTE = struct.Struct("=HH")
_ANSWER_BYTES = 65536


def numbers(index: int) -> dict[int, int] | None:
    """What an interface's own kind says of it, numbers by attribute; None where it is gone."""
    kind, answer = _asked(_RTM_GETLINK, _NLM_F_REQUEST, index)
    if kind != _RTM_NEWLINK:
        return None
    link = _attributes(answer[_IFINFO.size :])
    found = _attributes(_attributes(link.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_DATA, b""))
    return {attribute: int.from_bytes(value, sys.byteorder) for attribute, value in found.items()}


def delete(index: int) -> None:
    """Remove an interface; harmless where it is gone."""
    _asked(_RTM_DELLINK, _NLM_F_REQUEST | _NLM_F_ACK, index)


def _asked(order: int, flags: int, index: int) -> tuple[int, bytes]:
    """The kind of the kernel's answer, and what is in it."""
    body = _IFINFO.pack(0, 0, index, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.send(_NLMSG.pack(_NLMSG.size + len(body), order, flags, 0, 0) + body)
        answer = kernel.recv(_ANSWER_BYTES)
    return _NLMSG.unpack_from(answer)[1], answer[_NLMSG.size :]


def _attributes(content: bytes) -> dict[int, bytes]:
    """Netlink's attributes (netlink(7)), each padded to four bytes."""
    found = {}
    while len(content) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(content)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _NLA_TYPE_MASK] = content[_ATTRIBUTE.size : length]
        content = content[(length + 3) & ~3 :]
    return found

# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's side of a tap: send a frame as though the guest had."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from tests.host.namespace import require_private_host

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TUNGETVNETHDRSZ = 0x800454D7
_IFF_TAP = 0x0002
_IFF_MULTI_QUEUE = 0x0100
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
# linux/if.h: char ifr_name[16]; short ifr_flags; the rest of the union
_IFREQ = struct.Struct("16sH22x")


def open_tap(name: str, multi_queue: bool = True) -> int:
    """Open a queue of a tap, which is created where there is none; the caller closes it.

    A tap that exists must have been made with the same `multi_queue`. The kernel sets its other
    flags to those of the queue attached last, so it is attached with those that it has: without
    them QEMU and the kernel would no longer agree on where a frame begins.
    """
    require_private_host()
    flags = _IFF_TAP | _IFF_NO_PI | (_IFF_MULTI_QUEUE if multi_queue else 0)
    flags |= _flags_of(name) & _IFF_VNET_HDR
    queue = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(queue, _TUNSETIFF, _IFREQ.pack(name.encode(), flags))
    except OSError:
        os.close(queue)
        raise
    return queue


def inject(tap_name: str, *frames: bytes) -> None:
    """Send frames out of a tap that a running QEMU holds, as though its guest had sent them.

    The domain's NIC needs `queues=2`, or libvirt makes a tap that takes QEMU's queue alone.
    """
    if not _flags_of(tap_name):
        raise LookupError(f"there is no tap {tap_name}")
    queue = open_tap(tap_name)
    try:
        header = bytes(_header_length(queue, tap_name))
        for frame in frames:
            os.write(queue, header + frame)
    finally:
        os.close(queue)


def _flags_of(name: str) -> int:
    try:
        return int(Path("/sys/class/net", name, "tun_flags").read_text(), 16)
    except FileNotFoundError:
        return 0


def _header_length(queue: int, name: str) -> int:
    if not _flags_of(name) & _IFF_VNET_HDR:
        return 0
    answer = fcntl.ioctl(queue, _TUNGETVNETHDRSZ, bytes(4))
    return int.from_bytes(answer, "little")

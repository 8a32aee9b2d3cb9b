# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's taps, and who may add a queue to them."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from virtwarden.system import links

DEVICE = "/dev/net/tun"
_INTERFACES = Path("/sys/class/net")
# linux/if_tun.h; struct ifreq: char ifr_name[16], short ifr_flags, and the rest of a union
_IFF_TAP = 0x0002
_IFF_MULTI_QUEUE = 0x0100
_IFF_NO_PI, _IFF_VNET_HDR = 0x1000, 0x4000
_SETTABLE = _IFF_TAP | _IFF_MULTI_QUEUE | _IFF_NO_PI | _IFF_VNET_HDR
# libvirt gives several queues only to virtio, and these flags to virtio alone
_OF_VIRTIO = _SETTABLE
_TUNSETIFF, _TUNSETOWNER = 0x400454CA, 0x400454CC
_TUNSETTXFILTER, _TUNDETACHFILTER, _TUNSETCARRIER = 0x400454D1, 0x401054D6, 0x400454E2
_IFREQ = struct.Struct("16sH22x")
# linux/sockios.h, linux/if_arp.h; struct ifreq with a struct sockaddr
_SIOCSIFHWADDR, _ARPHRD_ETHER = 0x8924, 1
_IFREQ_ADDRESS = struct.Struct("16sH6s16x")
# linux/if_link.h
_IFLA_TUN_OWNER, _IFLA_TUN_MULTI_QUEUE = 1, 7
_IFLA_TUN_NUM_QUEUES, _IFLA_TUN_NUM_DISABLED_QUEUES = 8, 9
_NOBODY = 0xFFFFFFFF


@dataclass(frozen=True)
class Tap:
    """A tap. Another tap may get its name later, but until a reboot none gets its index."""

    name: str
    index: int


@dataclass(frozen=True)
class Standing:
    """A tap at one moment: its queues, those that are switched off too, and who may add one."""

    queues: int
    is_roots: bool


def find(name: str) -> Tap | None:
    """The tap of this name; None where there is none, or where it is no tap."""
    try:
        if _flags(name) & _IFF_TAP:
            return Tap(name, int((_INTERFACES / name / "ifindex").read_text()))
    except (OSError, ValueError):
        pass
    return None


def every() -> tuple[Tap, ...]:
    """All taps of this host."""
    return tuple(filter(None, map(find, sorted(os.listdir(_INTERFACES)))))  # noqa: PTH208


def address(name: str) -> str:
    """The MAC address of an interface itself; empty where there is no such interface."""
    try:
        # A bridge may have a thousand ports: pathlib would take twice as long.
        with open(f"{_INTERFACES}/{name}/address") as file:  # noqa: PTH123
            return file.read().strip()
    except OSError:
        return ""


def address_for(mac: str) -> str:
    """The MAC address that libvirt gives to the tap of a NIC with this one.

    It differs in the first byte, so that a bridge does not take it (virNetDevTapCreateInBridgePort
    in libvirt's src/util/virnetdevtap.c).
    """
    first, rest = mac.lower()[:2], mac.lower()[2:]
    return f"{'fa' if first == 'fe' else 'fe'}{rest}"


def _flags(name: str) -> int:
    """The flags of a tap (linux/if_tun.h); 0 where there is no tap of this name."""
    try:
        return int((_INTERFACES / name / "tun_flags").read_text(), 16)
    except (OSError, ValueError):
        return 0


def standing(tap: Tap) -> Standing | None:
    """How many queues a tap has, and whether only root can add one; None where it is gone.

    Both are of the same moment: the kernel answers under the lock under which it changes them. So
    where the tap is root's and the number is right, nobody else has a queue or gets one. The number
    also tells of a queue that is in no process, but on its way through a socket (unix(7)).
    """
    found = links.numbers(tap.index)
    if found is None:
        return None
    # The kernel counts only where there can be several (drivers/net/tun.c).
    queues = found.get(_IFLA_TUN_NUM_QUEUES, 1) + found.get(_IFLA_TUN_NUM_DISABLED_QUEUES, 0)
    is_roots = not found.get(_IFLA_TUN_MULTI_QUEUE) or found.get(_IFLA_TUN_OWNER, _NOBODY) == 0
    return Standing(queues, is_roots)


def is_others(name: str) -> bool:
    """Whether other users than root can add a queue to this tap."""
    tap = find(name)
    found = standing(tap) if tap else None
    return found is not None and not found.is_roots


def keep_for_root(name: str) -> None:
    """Let only root add a queue to a multi-queue tap; nobody can to a tap with one queue.

    Every user can open a tap without an owner (linux/Documentation/networking/tuntap.rst). This
    opens a queue with the flags of the tap, since the kernel uses the flags of the newest queue.
    While that queue is open, frames may go to it and be lost. So this does nothing where the tap
    is root's already. Raises OSError.
    """
    if is_others(name):
        with _one_more_queue(name, _flags(name) & _SETTABLE) as queue:
            fcntl.ioctl(queue, _TUNSETOWNER, 0)


def seize(tap: Tap, mac: str) -> Standing | None:
    """Make a tap of several queues root's, and as libvirt made it; how it stands then.

    Whoever had a queue may have let it go, and have left behind a filter, no carrier, other flags
    or, if `mac` is given, another MAC address. Where nobody else had a queue meanwhile, by the
    number that this gives, none of that is left. Does nothing to a tap of one queue. Raises
    OSError.
    """
    if not _flags(tap.name) & _IFF_MULTI_QUEUE:
        return standing(tap)
    with _one_more_queue(tap.name, _OF_VIRTIO) as queue:
        fcntl.ioctl(queue, _TUNSETOWNER, 0)
        found = standing(tap)
        fcntl.ioctl(queue, _TUNDETACHFILTER, bytes(16))
        fcntl.ioctl(queue, _TUNSETTXFILTER, bytes(4))
        fcntl.ioctl(queue, _TUNSETCARRIER, struct.pack("i", 1))
        if mac and address(tap.name) != mac:
            octets = bytes.fromhex(mac.replace(":", ""))
            wanted = _IFREQ_ADDRESS.pack(tap.name.encode(), _ARPHRD_ETHER, octets)
            fcntl.ioctl(queue, _SIOCSIFHWADDR, wanted)
    return found and Standing(found.queues - 1, found.is_roots)


@contextmanager
def _one_more_queue(name: str, flags: int) -> Iterator[int]:
    queue = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(queue, _TUNSETIFF, _IFREQ.pack(name.encode(), flags))
        yield queue
    finally:
        os.close(queue)


def remove(tap: Tap) -> None:
    """Remove a tap, whoever still has it open; what they send through it goes nowhere then.

    Harmless where it is gone, or where another tap has its name now.
    """
    if find(tap.name) == tap:
        links.delete(tap.index)

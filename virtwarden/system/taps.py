# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's taps, and the processes that hold them."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from virtwarden.errors import CommandError
from virtwarden.system.bridges import IP
from virtwarden.system.run import run

_INTERFACES = Path("/sys/class/net")
_DEVICE = "/dev/net/tun"
# linux/if_tun.h; struct ifreq: char ifr_name[16], short ifr_flags, and the rest of a union
_IFF_TAP = 0x0002
_IFF_MULTI_QUEUE = 0x0100
_SETTABLE = _IFF_TAP | _IFF_MULTI_QUEUE | 0x1000 | 0x4000  # IFF_NO_PI, IFF_VNET_HDR
_TUNSETIFF, _TUNSETOWNER = 0x400454CA, 0x400454CC
_IFREQ = struct.Struct("16sH22x")
# linux/rtnetlink.h, linux/if_link.h, linux/if_tun.h: what the kernel says of one tap
_RTM_NEWLINK, _RTM_GETLINK, _NLM_F_REQUEST = 16, 18, 1
_IFLA_LINKINFO, _IFLA_INFO_DATA = 18, 2
_IFLA_TUN_OWNER, _IFLA_TUN_NUM_QUEUES, _IFLA_TUN_NUM_DISABLED_QUEUES = 1, 8, 9
_NLMSG = struct.Struct("=IHHII")
_IFINFO = struct.Struct("=BxHiII")
_ATTRIBUTE = struct.Struct("=HH")
_ANSWER_BYTES = 65536
# proc_pid_exe(5): a program that was replaced, by an upgrade for example
_REPLACED = " (deleted)"


@dataclass(frozen=True)
class Tap:
    """A tap. Another tap may get its name later, but until a reboot none gets its index."""

    name: str
    index: int


@dataclass(frozen=True)
class Holder:
    """A process that has a tap open."""

    pid: int
    uid: int
    program: str


def find(name: str) -> Tap | None:
    """The tap of this name; None where there is none, or where it is no tap."""
    try:
        if _flags(name) & _IFF_TAP:
            return Tap(name, int((_INTERFACES / name / "ifindex").read_text()))
    except (OSError, ValueError):
        pass
    return None


def _flags(name: str) -> int:
    """The flags of a tap (linux/if_tun.h); 0 where there is no tap of this name."""
    try:
        return int((_INTERFACES / name / "tun_flags").read_text(), 16)
    except (OSError, ValueError):
        return 0


def keep_for_root(name: str) -> None:
    """Let only root add a queue to a multi-queue tap; nobody can to a tap with one queue.

    Every user can open a tap without an owner (linux/Documentation/networking/tuntap.rst). This
    opens a queue with the flags of the tap, since the kernel uses the flags of the newest queue.
    While that queue is open, frames may go to it and be lost. So this does nothing where the tap
    is root's already. Raises OSError.
    """
    if not is_others(name):
        return
    queue = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(queue, _TUNSETIFF, _IFREQ.pack(name.encode(), _flags(name) & _SETTABLE))
        fcntl.ioctl(queue, _TUNSETOWNER, 0)
    finally:
        os.close(queue)


def is_others(name: str) -> bool:
    """Whether other users than root can add a queue to this tap."""
    try:
        owner = int((_INTERFACES / name / "owner").read_text())
    except (OSError, ValueError):
        return False
    return bool(_flags(name) & _IFF_MULTI_QUEUE) and owner != 0


@dataclass(frozen=True)
class Standing:
    """A tap at one moment: its owner, or -1, and its queues, those that are switched off too."""

    owner: int
    queues: int


def standing(tap: Tap) -> Standing | None:
    """Who may add a queue to a tap, and how many there are; None where the tap is gone.

    Both are of the same moment: the kernel answers under the lock under which it changes them. So
    where root owns the tap and the number is right, nobody else has a queue or gets one. The number
    also tells of a queue that is in no process, but on its way through a socket (unix(7)).
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        body = _IFINFO.pack(0, 0, tap.index, 0, 0)
        kernel.send(_NLMSG.pack(_NLMSG.size + len(body), _RTM_GETLINK, _NLM_F_REQUEST, 0, 0) + body)
        answer = kernel.recv(_ANSWER_BYTES)
    if _NLMSG.unpack_from(answer)[1] != _RTM_NEWLINK:
        return None
    link = _attributes(answer[_NLMSG.size + _IFINFO.size :])
    found = _attributes(_attributes(link.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_DATA, b""))
    numbers = {kind: int.from_bytes(value, "little") for kind, value in found.items()}
    # The kernel counts only where there can be several (drivers/net/tun.c).
    queues = numbers.get(_IFLA_TUN_NUM_QUEUES, 1) + numbers.get(_IFLA_TUN_NUM_DISABLED_QUEUES, 0)
    return Standing(numbers.get(_IFLA_TUN_OWNER, -1), queues)


def _attributes(content: bytes) -> dict[int, bytes]:
    """Netlink's attributes (netlink(7)), each padded to four bytes."""
    found = {}
    while len(content) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(content)
        if length < _ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = content[_ATTRIBUTE.size : length]
        content = content[(length + 3) & ~3 :]
    return found


def remove(tap: Tap) -> None:
    """Remove a tap, whoever still has it open; what they send through it goes nowhere then.

    Harmless where it is gone, or where another tap has its name now.
    """
    if find(tap.name) == tap:
        with suppress(CommandError):
            run(IP, "link", "delete", "dev", tap.name)


def every() -> tuple[Tap, ...]:
    """All taps of this host."""
    return tuple(filter(None, map(find, sorted(os.listdir(_INTERFACES)))))  # noqa: PTH208


def holders() -> dict[str, list[Holder]]:
    """The processes that have each tap open, by the tap's name (proc(5), /proc/PID/fdinfo)."""
    found: dict[str, list[Holder]] = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            for name in sorted(set(_held_by(process))):
                found.setdefault(name, []).append(_holder(process))
    return found


def _held_by(process: Path) -> Iterator[str]:
    """The taps that any thread of a process has open.

    A thread can have descriptors of its own (clone(2), CLONE_FILES), and the process's directory
    shows none once its first thread has ended.
    """
    for task in _listed(f"{process}/task"):
        directory = f"{process}/task/{task}"
        for descriptor in _listed(f"{directory}/fd"):
            with suppress(FileNotFoundError, ProcessLookupError):  # closed meanwhile
                if os.readlink(f"{directory}/fd/{descriptor}") == _DEVICE:  # noqa: PTH115
                    yield from _tap_at(Path(directory, "fdinfo", descriptor))


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)  # noqa: PTH208 - there may be thousands
    except (FileNotFoundError, ProcessLookupError):
        return []


def _tap_at(information: Path) -> Iterator[str]:
    for line in information.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == "iff" and value.strip():
            yield value.strip()


def _holder(process: Path) -> Holder:
    try:
        program = (process / "exe").readlink().name.removesuffix(_REPLACED)
        return Holder(int(process.name), _uid(process), program)
    except (OSError, ValueError, StopIteration):
        return Holder(int(process.name), -1, "")


def _uid(process: Path) -> int:
    """A uid of the process, root's only where all of them are.

    The owner of its directory in /proc is root for every process that made itself undumpable.
    """
    status = (process / "status").read_text(errors="replace").splitlines()
    line = next(line for line in status if line.startswith("Uid:"))
    return next((uid for uid in map(int, line.split()[1:]) if uid), 0)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's taps, and the processes that hold them."""

from __future__ import annotations

import fcntl
import os
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
_IFF_PERSIST = 0x0800
_SETTABLE = _IFF_TAP | _IFF_MULTI_QUEUE | 0x1000 | 0x4000  # IFF_NO_PI, IFF_VNET_HDR
_TUNSETIFF, _TUNSETOWNER = 0x400454CA, 0x400454CC
_IFREQ = struct.Struct("16sH22x")
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
    has an owner already. Raises OSError.
    """
    if not is_anybodys(name):
        return
    queue = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(queue, _TUNSETIFF, _IFREQ.pack(name.encode(), _flags(name) & _SETTABLE))
        fcntl.ioctl(queue, _TUNSETOWNER, 0)
    finally:
        os.close(queue)


def is_anybodys(name: str) -> bool:
    """Whether every user of the host can add a queue to this tap."""
    try:
        owner = int((_INTERFACES / name / "owner").read_text())
    except (OSError, ValueError):
        return False
    return bool(_flags(name) & _IFF_MULTI_QUEUE) and owner == -1


def remove(tap: Tap) -> None:
    """Remove a tap that was made to outlive the process that has it open (TUNSETPERSIST).

    Harmless where it is gone, or where another tap has its name now.
    """
    if find(tap.name) == tap and _flags(tap.name) & _IFF_PERSIST:
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
            for name in _held_by(process):
                found.setdefault(name, []).append(_holder(process))
    return found


def _held_by(process: Path) -> Iterator[str]:
    try:
        for descriptor in os.listdir(process / "fd"):  # noqa: PTH208 - there may be thousands
            if os.readlink(f"{process}/fd/{descriptor}") != _DEVICE:  # noqa: PTH115
                continue
            for line in (process / "fdinfo" / descriptor).read_text().splitlines():
                key, _, value = line.partition(":")
                if key == "iff" and value.strip():
                    yield value.strip()
    except (FileNotFoundError, ProcessLookupError):
        return  # the process ended or closed it meanwhile


def _holder(process: Path) -> Holder:
    try:
        program = (process / "exe").readlink().name.removesuffix(_REPLACED)
        return Holder(int(process.name), process.stat().st_uid, program)
    except OSError:
        return Holder(int(process.name), -1, "")

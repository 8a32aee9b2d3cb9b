"""The host's taps, and who holds them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_INTERFACES = Path("/sys/class/net")
_DEVICE = "/dev/net/tun"
# linux/if_tun.h
_IFF_TAP = 0x0002


@dataclass(frozen=True)
class Tap:
    """A tap by its name, which may be given again, and its index, which is not before a reboot."""

    name: str
    index: int


@dataclass(frozen=True)
class Holder:
    """A process that has a tap open."""

    pid: int
    uid: int
    program: str


def find(name: str) -> Tap | None:
    """The tap of this name; None where there is none, or it is another kind of interface."""
    try:
        if int((_INTERFACES / name / "tun_flags").read_text(), 16) & _IFF_TAP:
            return Tap(name, int((_INTERFACES / name / "ifindex").read_text()))
    except (OSError, ValueError):
        pass
    return None


def every() -> tuple[Tap, ...]:
    """All taps of this host."""
    return tuple(filter(None, map(find, sorted(os.listdir(_INTERFACES)))))  # noqa: PTH208


def holders() -> dict[str, list[Holder]]:
    """Which processes have which taps open, by the taps' names (proc(5), /proc/PID/fdinfo)."""
    found: dict[str, list[Holder]] = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            for name in _held_by(process):
                found.setdefault(name, []).append(_holder(process))
    return found


def _held_by(process: Path) -> Iterator[str]:
    try:
        for descriptor in os.listdir(process / "fd"):  # noqa: PTH208 - there may be thousands
            if os.readlink(process / "fd" / descriptor) != _DEVICE:  # noqa: PTH115
                continue
            for line in (process / "fdinfo" / descriptor).read_text().splitlines():
                key, _, value = line.partition(":")
                if key == "iff" and value.strip():
                    yield value.strip()
    except (FileNotFoundError, ProcessLookupError):
        return  # it ended, or closed it, meanwhile


def _holder(process: Path) -> Holder:
    try:
        program = (process / "exe").readlink().name
        return Holder(int(process.name), process.stat().st_uid, program)
    except OSError:
        return Holder(int(process.name), -1, "")

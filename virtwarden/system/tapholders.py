# SPDX-License-Identifier: GPL-2.0-or-later
"""The processes that have the host's taps open (proc(5), /proc/PID/fdinfo)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from virtwarden.system import descriptors
from virtwarden.system.taps import DEVICE

LIBVIRT = ("libvirtd", "virtqemud")
"""The programs that make taps for libvirt's domains."""


@dataclass(frozen=True)
class Holder:
    """A process that has a tap open, with how many descriptors; `uid` is root's only if all are."""

    pid: int
    uid: int
    program: str
    descriptors: int = 1


def holders() -> dict[str, list[Holder]]:
    """The processes that have each tap open, by the tap's name."""
    found: dict[str, list[Holder]] = {}
    for pid in descriptors.processes():
        for name, count in sorted(Counter(_held_by(pid)).items()):
            found.setdefault(name, []).extend(_holder(pid, count))
    return found


def _held_by(pid: int) -> Iterator[str]:
    """The taps that any thread of a process has open."""
    for directory, number in descriptors.of_process(pid):
        with suppress(FileNotFoundError, ProcessLookupError):  # closed meanwhile
            if os.readlink(f"{directory}/fd/{number}") == DEVICE:  # noqa: PTH115
                yield from _tap_at(Path(directory, "fdinfo", number))


def _tap_at(information: Path) -> Iterator[str]:
    for line in information.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == "iff" and value.strip():
            yield value.strip()


def _holder(pid: int, count: int) -> Iterator[Holder]:
    """The process, if it has not just ended."""
    program = descriptors.program(pid)
    uids = descriptors.uids(pid)
    if uids:
        yield Holder(pid, max(uids), program, count)

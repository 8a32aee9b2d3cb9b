# SPDX-License-Identifier: GPL-2.0-or-later
"""The processes that have the host's taps open (proc(5), /proc/PID/fdinfo)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from virtwarden.system.taps import DEVICE

LIBVIRT = ("libvirtd", "virtqemud")
"""The programs that make taps for libvirt's domains."""
# proc_pid_exe(5): a program that was replaced, by an upgrade for example
_REPLACED = " (deleted)"
# kcmp(2), KCMP_FILES; asm/unistd.h
_SYS_KCMP = {"x86_64": 312, "aarch64": 272}.get(os.uname().machine, -1)
_KCMP_FILES = 2


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
    for process in os.listdir("/proc"):  # noqa: PTH208 - there may be thousands
        if process.isdigit():
            for name, count in sorted(Counter(_held_by(int(process))).items()):
                found.setdefault(name, []).extend(_holder(int(process), count))
    return found


def _held_by(pid: int) -> Iterator[str]:
    """The taps that any thread of a process has open.

    A thread can have descriptors of its own (clone(2), CLONE_FILES), and the process's directory
    shows none once its first thread has ended.
    """
    looked_at: list[int] = []
    for task in map(int, _listed(f"/proc/{pid}/task")):
        # Nearly all threads of nearly all processes share what the first one looked at has.
        if looked_at and _share_descriptors(looked_at[0], task):
            continue
        directory = f"/proc/{pid}/task/{task}"
        descriptors = _listed(f"{directory}/fd")
        looked_at += [task] if descriptors else []
        for descriptor in descriptors:
            with suppress(FileNotFoundError, ProcessLookupError):  # closed meanwhile
                if os.readlink(f"{directory}/fd/{descriptor}") == DEVICE:  # noqa: PTH115
                    yield from _tap_at(Path(directory, "fdinfo", descriptor))


def _share_descriptors(one: int, other: int) -> bool:
    return _SYS_KCMP > 0 and _system_call()(_SYS_KCMP, one, other, _KCMP_FILES, 0, 0) == 0


@cache
def _system_call() -> Callable[..., int]:
    import ctypes  # a late import: it takes long, and hardly any start comes here

    return ctypes.CDLL(None).syscall


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


def _holder(pid: int, descriptors: int) -> Iterator[Holder]:
    """The process, if it has not just ended."""
    try:
        program = Path(f"/proc/{pid}/exe").readlink().name.removesuffix(_REPLACED)
    except OSError:  # as where its first thread has ended
        program = ""
    uids = [uid for task in _listed(f"/proc/{pid}/task") for uid in _uids(pid, task)]
    if uids:
        yield Holder(pid, max(uids), program, descriptors)


def _uids(pid: int, task: str) -> list[int]:
    """A thread's uids.

    The owner of its directory in /proc is root for every process that made itself undumpable.
    """
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/task/{task}/status").read_bytes().splitlines():
            if line.startswith(b"Uid:"):
                return [*map(int, line.split()[1:])]
    return []

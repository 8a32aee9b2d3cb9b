# SPDX-License-Identifier: GPL-2.0-or-later
"""The open descriptors of the host's processes, as /proc shows them (proc(5), /proc/PID/fd)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

# proc_pid_exe(5): a program that was replaced, by an upgrade for example
_REPLACED = " (deleted)"
# kcmp(2), KCMP_FILES; asm/unistd.h
_SYS_KCMP = {"x86_64": 312, "aarch64": 272}.get(os.uname().machine, -1)
_KCMP_FILES = 2


def processes() -> Iterator[int]:
    """The pids of all processes."""
    for name in os.listdir("/proc"):  # noqa: PTH208 - there may be thousands
        if name.isdigit():
            yield int(name)


def of_process(pid: int) -> Iterator[tuple[str, str]]:
    """Each descriptor of any thread of a process: the thread's directory, and the number.

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
            yield directory, descriptor


def uids(pid: int) -> list[int]:
    """All uids of all threads of a process; none where it has ended.

    The owner of its directory in /proc is root for every process that made itself undumpable.
    """
    return [uid for task in _listed(f"/proc/{pid}/task") for uid in _uids_of(pid, task)]


def program(pid: int) -> str:
    """The name of the program that a process runs; empty where its first thread has ended."""
    try:
        return Path(f"/proc/{pid}/exe").readlink().name.removesuffix(_REPLACED)
    except OSError:
        return ""


def _uids_of(pid: int, task: str) -> list[int]:
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/task/{task}/status").read_bytes().splitlines():
            if line.startswith(b"Uid:"):
                return [*map(int, line.split()[1:])]
    return []


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

# SPDX-License-Identifier: GPL-2.0-or-later
"""How one domain's QEMU is confined, in the words of proc(5)."""

from __future__ import annotations

from collections import Counter

from virtwarden.errors import WardenError
from virtwarden.guards.base import Case
from virtwarden.guards.confinement import is_sandboxed
from virtwarden.system import process
from virtwarden.system.process import Process


def confinement(case: Case, pid: int | None) -> dict[str, str]:
    """The limits of the running process, as the kernel reports them; empty where it has ended."""
    try:
        return {} if pid is None else _told(process.read(pid), sandboxed=is_sandboxed(case))
    except (WardenError, OSError):
        return {}


def _told(found: Process, *, sandboxed: bool) -> dict[str, str]:
    return {
        "uids and gids": _numbers((*found.uids, *found.gids)),
        "groups": _numbers(found.groups),
        "capabilities": f"{found.capabilities:#x}" if found.capabilities else "none",
        "privileges": "none to gain"
        if found.no_new_privileges
        else "may be gained by setuid files",
        "system calls": _calls(found),
        "mandatory access": found.label or "no label",
        "sandbox": "Landlock" if sandboxed else "none",
        "cgroup": found.cgroup or "none",
        "core dumps": "none" if found.core_limit == "0" else f"up to {found.core_limit}",
        "umask": f"{found.umask:03o}",
        "environment": " ".join(sorted(found.environment)) or "empty",
        "open files": _opened(process.descriptors(found.pid)),
        "others' processes": "hidden"
        if process.are_hidden(process.mount_options())
        else "seen, with their command lines (hidepid)",
    }


def _calls(found: Process) -> str:
    if not found.seccomp:
        return "all"
    count = found.seccomp_filters
    return "filtered by seccomp" + ("" if count is None else f" ({count} filters)")


def _opened(descriptors: tuple[str, ...]) -> str:
    """The open files by their paths; where a kind has no path, how many there are of it."""
    kinds = Counter(each.partition(":")[0] for each in descriptors if not each.startswith("/"))
    nameless = [f"{number} {kind}" for kind, number in sorted(kinds.items())]
    return ", ".join([*sorted({each for each in descriptors if each.startswith("/")}), *nameless])


def _numbers(numbers: tuple[int, ...]) -> str:
    return " ".join(str(number) for number in sorted(set(numbers))) or "none"

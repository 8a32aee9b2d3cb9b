"""How one domain's QEMU is confined, in the words of proc(5)."""

from __future__ import annotations

import json
from pathlib import Path

from virtwarden.errors import WardenError
from virtwarden.guards.base import Case
from virtwarden.system import process
from virtwarden.system.process import Process


def confinement(case: Case, pid: int | None) -> dict[str, str]:
    """What holds the running process, and what the kernel says of each; empty where it ended."""
    try:
        return {} if pid is None else _told(process.read(pid), sandboxed=_sandboxed(case))
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
        "system calls": "filtered by seccomp" if found.seccomp else "all",
        "mandatory access": found.label or "no label",
        "sandbox": "Landlock" if sandboxed else "none",
        "cgroup": found.cgroup or "none",
        "core dumps": "none" if found.core_limit == "0" else f"up to {found.core_limit}",
        "umask": f"{found.umask:03o}",
        "environment": " ".join(sorted(found.environment)) or "empty",
    }


def _numbers(numbers: tuple[int, ...]) -> str:
    return " ".join(str(number) for number in sorted(set(numbers))) or "none"


def _sandboxed(case: Case) -> bool:
    """The wrapper becomes QEMU only as its ticket says; of a ruleset, proc(5) tells nothing."""
    try:
        ticket = json.loads((Path(case.cell) / "ticket.json").read_bytes())
    except FileNotFoundError:
        return False
    return ticket.get("landlock") is not None

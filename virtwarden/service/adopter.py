# SPDX-License-Identifier: GPL-2.0-or-later
"""Gives a starting QEMU that nobody enrolled its own user; wrapper/adoption.py asks for it.

    wrapper                                   service
    connects                    ───────▶
    makes a user namespace
    one byte                    ───────▶      finds out who it is, and for whom libvirt started it
                                              gives away what the plan of `start` says, maps the ids
                                ◀───────      JSON: uid, gid, groups, ticket; or refusal, fix
    becomes that user

The wrapper says nothing of itself that is believed. libvirt wrote the pid of the process that it
starts; only a start that waits for just this is adopted, and once.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from virtwarden import log
from virtwarden.changes import Change, GiveNodes, MapIds, journal
from virtwarden.errors import HostError, WardenError
from virtwarden.paths import Paths
from virtwarden.system import files, process, users
from virtwarden.system.asker import Asker, asker, objection

_PREPARED_SECONDS = 20
# In which libvirt puts domains, by systemd-machined (machine.slice) or by itself (machine).
_MACHINES = "/machine"


@dataclass(frozen=True)
class _Waiting:
    """A start that waits to be adopted."""

    uuid: str
    name: str
    user: str
    number: str
    """libvirt's own of this run (`<domain id='…'>`)."""


def is_awaited(paths: Paths, connection: socket.socket) -> bool:
    """Whether a start waits for the process that connected. Cheap: everybody may connect."""
    try:
        with asker(connection) as asked:
            return _waiting(paths, asked) is not None
    except OSError:
        return False


def answer(connection: socket.socket, paths: Paths) -> None:
    """Adopt the start that waits for this process, and tell the process who it is now."""
    with suppress(OSError), asker(connection) as asked:
        waiting = _waiting(paths, asked)
        if waiting is None:
            return
        connection.settimeout(_PREPARED_SECONDS)
        if connection.recv(1) != b"\n":
            return
        said = _adopted(paths, asked, waiting)
        connection.sendall(json.dumps(said).encode())


def _adopted(paths: Paths, asked: Asker, waiting: _Waiting) -> dict[str, Any]:
    """What the wrapper is told: its ids, or why it gets none."""
    fields = {"domain": waiting.name, "uuid": waiting.uuid}
    try:
        account = _adopt(paths, asked, waiting)
    except (WardenError, OSError) as error:
        log.event(log.Level.ERROR, "refused", **fields, op="adopt", reason=error)
        what = error.what if isinstance(error, WardenError) else str(error)
        fix = error.fix if isinstance(error, WardenError) else ""
        return {"refusal": what, "fix": fix or "start it again; journalctl -t virt-warden"}
    log.event(log.Level.NOTICE, "adopted", **fields, user=account.name, pid=asked.pid)
    groups = sorted({account.gid, *users.groups_of(account)})
    ticket = (paths.cell(waiting.uuid) / "ticket.json").read_text()
    return {"uid": account.uid, "gid": account.gid, "groups": groups, "ticket": ticket}


def _adopt(paths: Paths, asked: Asker, waiting: _Waiting) -> users.Account:
    with journal.locked(paths, waiting.uuid):
        # Read again under the lock: a start is adopted once.
        if _waiting(paths, asked) != waiting:
            raise HostError("this start does not wait for a user any more")
        plan = _taken(paths, waiting)
        against = objection(asked, waiting.uuid) or _elsewhere(asked, waiting)
        if against:
            raise HostError(f"the process that libvirt started is not as it should be: {against}")
        own = (GiveNodes(asked.pid, waiting.user), MapIds(asked.pid, waiting.user))
        journal.perform(paths, waiting.uuid, [*plan, *own])
        if not asked.lives():
            raise HostError("the process that libvirt started has ended")
    account = users.account(waiting.user)
    if account is None:
        raise HostError(f"there is no user {waiting.user}")
    return account


def _taken(paths: Paths, waiting: _Waiting) -> list[Change]:
    """What `start` planned; from now on nobody else is adopted by it."""
    plan = paths.adoption_plan(waiting.uuid)
    changes = journal.planned(json.loads(plan.read_text())["changes"])
    files.discard(paths.waiting / waiting.uuid)
    files.discard(plan)
    return changes


def _elsewhere(asked: Asker, waiting: _Waiting) -> str:
    """Whether it is in another domain's cgroup; qemu.conf may have libvirt make none."""
    # As systemd-escape(1) writes a dash in the name of a unit.
    found = process.cgroup(asked.pid).replace("\\x2d", "-")
    if _MACHINES not in found or f"qemu-{waiting.number}-" in found:
        return ""
    return f"it is in the cgroup {found}"


def _waiting(paths: Paths, asked: Asker) -> _Waiting | None:
    """The start for which libvirt has noted the pid of this process."""
    for waiting in _all_waiting(paths):
        with suppress(OSError, ValueError):
            if int(paths.qemu_pid(waiting.name).read_text()) == asked.pid:
                return waiting
    return None


def _all_waiting(paths: Paths) -> Iterator[_Waiting]:
    with suppress(FileNotFoundError):
        for note in paths.waiting.iterdir():
            with suppress(OSError, ValueError, KeyError):
                plan = json.loads(paths.adoption_plan(note.name).read_text())
                yield _Waiting(note.name, plan["name"], plan["user"], plan["number"])

# SPDX-License-Identifier: GPL-2.0-or-later
"""Who has the queues of a domain's tap: its domain alone, or somebody else too.

Until a tap of several queues is root's, any user of the host can take one.
"""

from __future__ import annotations

from collections.abc import Mapping

from virtwarden.errors import HostError
from virtwarden.gate.emulators import emulators
from virtwarden.paths import Paths
from virtwarden.system import taps
from virtwarden.system.tapholders import LIBVIRT, Holder, holders
from virtwarden.system.taps import Standing, Tap


def take_over(paths: Paths, tap: Tap, mac: str, queues: int | None) -> None:
    """Make a guarded domain's new tap root's, and as libvirt made it.

    Raises HostError where somebody else than the domain has a queue of it; not if the number of the
    domain's queues is not given.
    """
    found = taps.seize(tap, mac)
    if queues is not None:
        _require(paths, tap, found, queues)


def require_alone(paths: Paths, tap: Tap, queues: int | None) -> None:
    """Make a tap root's, and do not touch it otherwise. Raises HostError as `take_over` does."""
    taps.keep_for_root(tap.name)
    if queues is not None:
        _require(paths, tap, taps.standing(tap), queues)


def _require(paths: Paths, tap: Tap, found: Standing | None, queues: int) -> None:
    if found is None or found == Standing(queues, is_roots=True):
        return
    others = _others(paths, tap)
    pids = " ".join(str(each.pid) for each in others)
    raise HostError(
        f"somebody else is at {_crowded(tap.name, found, queues, others)}",
        fix=f"kill {pids}; then start it, or if it runs already: virt-warden network admit"
        if others
        else "start it again; if that does not help: chmod 0600 /dev/net/tun",
    )


def _others(paths: Paths, tap: Tap) -> list[Holder]:
    """Who has a tap open but libvirt, and the QEMU that libvirt gave it to."""
    given = emulators(paths.libvirt_run)
    return [
        holder
        for holder in holders().get(tap.name, [])
        if holder.pid != given.get(tap.name) and (holder.uid or holder.program not in LIBVIRT)
    ]


def _crowded(name: str, found: Standing, queues: int, others: list[Holder]) -> str:
    whose = ", ".join(map(_shown, others))
    return (
        f"tap {name}: it has {found.queues} queues, its domain {queues}"
        f" ({whose or 'no process shows it'})"
    )


def _shown(holder: Holder) -> str:
    return f"pid {holder.pid}, uid {holder.uid}, {holder.program}"


def strangers_at(queues: Mapping[str, int], uid: int) -> list[str]:
    """Who has any of these taps open but root and this user, a sentence each.

    `queues` has the number that the domain has of each tap, by the tap's name.
    """
    if not queues:
        return []
    found = holders()
    sentences = []
    for name, count in queues.items():
        at_it = found.get(name, [])
        strangers = [each for each in at_it if each.uid not in (0, uid)]
        sentences += [
            f"somebody else has tap {name} open: {_shown(each)} (kill {each.pid})"
            for each in strangers
        ]
        tap = taps.find(name)
        now = taps.standing(tap) if tap else None
        if now and now.queues > count and not strangers:
            others = [each for each in at_it if each.uid != uid]
            sentences.append(f"somebody else is at {_crowded(name, now, count, others)}")
    return sentences

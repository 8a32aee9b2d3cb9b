# SPDX-License-Identifier: GPL-2.0-or-later
"""The gate, and the filters of taps: whose frames may pass this host's bridges.

The gate is up while any guarded domain runs. It shuts out every tap that is not admitted. A guarded
domain's tap is admitted once its filter is installed; taps of other domains and foreign taps are
admitted unfiltered. A note is kept for each tap, so that all can be restored after a flush.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from virtwarden.errors import CommandError, HostError
from virtwarden.gate import bridges, counting, notes, queues
from virtwarden.gate.counting import dropped, look_at_drops
from virtwarden.gate.notes import Filtered
from virtwarden.gate.raising import (
    amiss,
    raise_again,
    raise_all,
    shut_if_gone,
    together,
)
from virtwarden.gate.unguarded import admit, admit_foreign, dismiss
from virtwarden.paths import Paths
from virtwarden.system import files, taps
from virtwarden.system.netfilter import BACKENDS, Gate, TapFilter
from virtwarden.system.taps import Tap

__all__ = [
    "abandon",
    "admit",
    "admit_foreign",
    "amiss",
    "backend_of",
    "dismiss",
    "dropped",
    "install",
    "is_up",
    "look_at_drops",
    "missing",
    "owner_of",
    "raise_again",
    "shut_if_gone",
    "shut_out",
    "uninstall",
]


def is_up(paths: Paths) -> bool:
    """Whether the gate should be up, by the notes; cheap, because the kernel is not asked."""
    return notes.is_needed(paths)


def install(
    paths: Paths,
    domain: str,
    backend: str,
    wanted_gate: str,
    foreign: Sequence[str],
    filters: Sequence[TapFilter],
    counts: Mapping[str, int] | None = None,
    kept: Sequence[str] = (),
) -> None:
    """Install the filters of a domain's taps, then admit the taps; all in one transaction.

    Raises the gate if it is not up. `counts` has how many queues a tap has that is its domain's
    alone; `kept` are taps that libvirt did not make. Raises HostError where a tap has another
    number, before any is noted, and CommandError.
    """
    with files.locked(paths.filters):
        was_up = is_up(paths)
        gate = notes.hold(paths, domain, wanted_gate, foreign)
        found = [f for f in (_looked_up(domain, backend, each) for each in filters) if f]
        for each in found:
            _take_over(paths, each, (counts or {}).get(each.tap.name), kept)
        for each in found:
            _end_former(paths, each)
            notes.write(paths, each)
        bridges.stop_learning(paths, domain, (each.tap.name for each in found))
        if was_up and _installed(gate, backend, found):
            return
        raise_all(paths, gate)


def _take_over(paths: Paths, each: Filtered, count: int | None, kept: Sequence[str]) -> None:
    """Have a tap be its domain's alone; its MAC address is only set if libvirt chose it."""
    former = notes.read(paths, each.tap.name)
    if former is not None and former.tap == each.tap:
        if former.domain != each.domain:
            raise HostError(
                f"tap {each.tap.name} is that of another domain, {former.domain}",
                fix=f"give the NIC another <target dev=…>: virsh edit {each.domain}",
            )
        queues.require_alone(paths, each.tap, count)
    else:
        mac = "" if each.tap.name in kept else _libvirts_choice(each.filter.mac)
        queues.take_over(paths, each.tap, mac, count)


def _libvirts_choice(mac: str) -> str:
    """The MAC address that libvirt gives a tap, by its guest's (virnetdevtap.c)."""
    return ("fa" if mac.startswith("fe") else "fe") + mac[2:]


def _looked_up(domain: str, backend: str, promise: TapFilter) -> Filtered | None:
    tap = taps.find(promise.tap)
    return Filtered(tap.index, domain, backend, promise) if tap else None


def _end_former(paths: Paths, each: Filtered) -> None:
    """Remove a tap's former filter of another backend; the same backend replaces its own."""
    former = notes.read(paths, each.tap.name)
    if former is not None and former.backend != each.backend:
        BACKENDS[former.backend].remove([each.tap.name])


def _installed(gate: Gate, backend: str, found: Sequence[Filtered]) -> bool:
    """Whether all was installed. False if the gate was flushed and must be raised again."""
    filters = {backend: [each.filter for each in found]}
    try:
        together(gate, filters, gate.admission([each.tap for each in found]))
    except CommandError:
        if gate.stands():
            raise
        return False
    return bool(found) or gate.stands()


def uninstall(paths: Paths, domain: str, names: Iterable[str], kept: Sequence[str] = ()) -> None:
    """Remove a domain's filters, its taps and its need of the gate; harmless if there are none.

    Taps in `kept` stay, shut out.

    A tap's name can be in use again as soon as its QEMU has ended, before this domain's release. A
    filter that belongs to another domain by then stays.
    """
    with files.locked(paths.filters):
        gate = notes.current_gate(paths)
        notes.let_go(paths, domain)
        written = {name: notes.read(paths, name) for name in names}
        ours = [each for each in written.values() if each and each.domain == domain]
        counting.record(paths, ours)
        if gate is None:
            _remove(ours)
        else:
            _take_out(gate, ours, lowered=not is_up(paths))
        for each in ours:
            # A tap outlives its QEMU where another process has it open, or by TUNSETPERSIST.
            if each.tap.name not in kept:
                taps.remove(each.tap)
            notes.erase(paths, each.tap.name)
        for name in written:
            notes.erase_torn(paths, name)
        bridges.learn_again(paths, domain)


def _take_out(gate: Gate, ours: Sequence[Filtered], *, lowered: bool) -> None:
    also = gate.lowering() if lowered else gate.dismissal([each.tap for each in ours])
    try:
        _remove([each for each in ours if each.backend != gate.name])
        names = [each.tap.name for each in ours if each.backend == gate.name]
        BACKENDS[gate.name].remove(names, also)
    except CommandError:
        if gate.stands():
            raise
        _remove(ours)


def _remove(ours: Iterable[Filtered]) -> None:
    for each in ours:
        BACKENDS[each.backend].remove([each.tap.name])


def abandon(paths: Paths) -> None:
    """Remove the gate, even if domains run; the filters of running domains stay."""
    if not is_up(paths):
        return
    with files.locked(paths.filters):
        gate = notes.current_gate(paths)
        if gate is not None:
            gate.perform(gate.lowering())
            notes.let_all_go(paths)


def shut_out(paths: Paths, names: Iterable[str]) -> list[Tap]:
    """Which of these taps the gate shuts out."""
    gate = notes.current_gate(paths)
    if gate is None:
        return []
    found = [tap for tap in map(taps.find, names) if tap]
    waiting = gate.shut_out(found) or []
    return [tap for tap in found if tap.name in waiting]


def backend_of(paths: Paths, name: str) -> str:
    """The backend that filters this tap, by the notes; empty if none does."""
    written = notes.read(paths, name)
    return written.backend if written and taps.find(name) == written.tap else ""


def owner_of(paths: Paths, name: str) -> str:
    """The UUID of the domain for which the tap of this name is filtered, or an empty string."""
    written = notes.read(paths, name)
    return written.domain if written and taps.find(name) == written.tap else ""


def missing(paths: Paths, names: Iterable[str]) -> list[str]:
    """What is wrong with the gate, a sentence each; `names` are taps that should be admitted."""
    names = list(names)
    found = [tap for tap in map(taps.find, names) if tap]
    gate = notes.current_gate(paths)
    waiting = gate.shut_out(found) if gate else None
    if waiting is None:
        fix = "virt-warden network restore"
        return [f"the gate is down: a NIC that is attached now would not be filtered ({fix})"]
    return [
        *(
            f"tap {name} is shut out by the gate: it is not admitted (virt-warden network admit)"
            for name in waiting
        ),
        *(
            f"other users than root can attach to tap {name} (ip -d link: it is not root's)"
            for name in names
            if taps.is_others(name) and notes.read(paths, name)
        ),
    ]

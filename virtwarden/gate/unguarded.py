# SPDX-License-Identifier: GPL-2.0-or-later
"""Who is not guarded and passes the gate all the same: other domains' taps, and foreign taps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase

from virtwarden.errors import CommandError, HostError
from virtwarden.gate import notes, queues
from virtwarden.gate.foreign import foreign_taps
from virtwarden.gate.notes import Filtered
from virtwarden.paths import Paths
from virtwarden.system import files, taps
from virtwarden.system.netfilter import Gate
from virtwarden.system.taps import Tap


def admit(paths: Paths, counts: Mapping[str, int]) -> None:
    """Admit taps of domains that are not guarded; does nothing if the gate is not up.

    `counts` has how many queues a tap's domain has of it. Raises HostError where somebody else is
    at a tap, which stays shut out, once the others are admitted.
    """
    if not notes.is_needed(paths):
        return
    with files.locked(paths.filters):
        gate = notes.current_gate(paths)
        free, refused = _told_apart(paths, counts)
        if gate is not None and free:
            _let_in(gate, free)
    if refused:
        raise refused[0]


def _told_apart(paths: Paths, counts: Mapping[str, int]) -> tuple[list[Tap], list[HostError]]:
    """The taps that are their domains' alone, and what is to say of the others."""
    free, refused = [], []
    for tap in filter(None, map(taps.find, counts)):
        try:
            queues.require_alone(paths, tap, counts[tap.name])
            free.append(tap)
        except HostError as error:
            refused.append(error)
    return free, refused


def _let_in(gate: Gate, found: Sequence[Tap]) -> None:
    try:
        gate.perform(gate.admission(found))
    except CommandError:
        if gate.stands():
            raise


def dismiss(paths: Paths, gone: Iterable[Tap]) -> None:
    """Undo `admit`; a new tap with the same name is not touched."""
    if not notes.is_needed(paths):
        return
    with files.locked(paths.filters):
        gate = notes.current_gate(paths)
        left = [tap for tap in gone if taps.find(tap.name) in (None, tap)]
        if gate is not None and left:
            with suppress(CommandError):  # it was flushed
                gate.perform(gate.dismissal(left))


def admit_foreign(paths: Paths, named: Sequence[str] = ()) -> list[str]:
    """Admit taps of no guarded domain, and those that `named` has: a `*` at its end is any rest.

    Gives the names of those that were shut out until now.
    """
    if not notes.is_needed(paths):
        return []
    with files.locked(paths.filters):
        gate = notes.current_gate(paths)
        if gate is None:
            return []
        others = unwritten(notes.every(paths))
        known = [tap for tap in others if any(fnmatchcase(tap.name, name) for name in named)]
        rest = [tap for tap in others if tap not in known]
        found = known + foreign_taps(rest, paths.libvirt_run)
        if not found:
            return []
        waiting = gate.shut_out(found) or []
        if waiting:
            _let_in(gate, [tap for tap in found if tap.name in waiting])
        return waiting


def unwritten(written: Iterable[Filtered]) -> list[Tap]:
    """The taps without a noted filter: only such a tap can be foreign."""
    filtered = {each.tap for each in written}
    return [tap for tap in taps.every() if tap not in filtered]

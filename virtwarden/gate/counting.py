# SPDX-License-Identifier: GPL-2.0-or-later
"""What the filters of all taps have counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from virtwarden import drops
from virtwarden.drops import Drops, Reading
from virtwarden.errors import CommandError
from virtwarden.gate import notes
from virtwarden.gate.notes import Filtered
from virtwarden.paths import Paths
from virtwarden.system import files
from virtwarden.system.netfilter import BACKENDS


def dropped(paths: Paths) -> list[Drops]:
    """How many frames each promise of each filtered NIC dropped, the latest first.

    Raises CommandError where the kernel cannot be asked.
    """
    with files.locked(paths.filters):
        return drops.record(paths, _readings(notes.present(paths)), are_all=True)


def look_at_drops(paths: Paths) -> list[Drops]:
    """The same, but write nothing down."""
    taps = notes.present(paths) if paths.filters.exists() else []
    return drops.look(paths, _readings(taps))


def record(paths: Paths, taps: Sequence[Filtered]) -> None:
    """What was counted goes with the rules. That is no reason to leave them, or to lay none."""
    with suppress(CommandError, OSError, ValueError):
        drops.record(paths, _readings(taps))


def _readings(taps: Sequence[Filtered]) -> list[Reading]:
    counts: dict[str, dict[str, Counter[str]]] = {}
    for name, backend in BACKENDS.items():
        promises = [each.filter for each in taps if each.backend == name]
        counts[name] = backend.dropped(promises) if promises else {}
    return [
        Reading(each.domain, each.filter.mac, each.index, counts[each.backend][each.filter.tap])
        for each in taps
        if each.filter.tap in counts[each.backend]
    ]

# SPDX-License-Identifier: GPL-2.0-or-later
"""Notes on disk about the gate and the filters, which every process can read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from virtwarden.paths import Paths
from virtwarden.system import files, taps
from virtwarden.system.netfilter import GATES, Gate, TapFilter
from virtwarden.system.taps import Tap


@dataclass(frozen=True)
class Filtered:
    """A tap's filter, its domain and its backend."""

    index: int
    domain: str
    backend: str
    filter: TapFilter

    @property
    def tap(self) -> Tap:
        """The tap as it was then."""
        return Tap(self.filter.tap, self.index)


def write(paths: Paths, each: Filtered) -> None:
    """Note a tap's filter; replaces an earlier note."""
    content = json.dumps(asdict(each)).encode()
    files.write_atomically(paths.filters / each.tap.name, content, 0o600)


def erase(paths: Paths, tap: str) -> None:
    """Remove the note of the tap with this name."""
    files.discard(paths.filters / tap)


def erase_torn(paths: Paths, tap: str) -> None:
    """Remove incomplete notes that a kill left."""
    if not (paths.filters / tap).exists():
        erase(paths, tap)


def read(paths: Paths, tap: str) -> Filtered | None:
    """The noted filter of the tap with this name, or None."""
    return _read(paths.filters / tap)


def every(paths: Paths) -> list[Filtered]:
    """All noted filters, one a tap."""
    notes = (_read(note) for note in sorted(paths.filters.iterdir()) if note.name[0] != ".")
    return [each for each in notes if each]


def present(paths: Paths) -> list[Filtered]:
    """The noted filters of taps that exist."""
    return [each for each in every(paths) if taps.find(each.tap.name) == each.tap]


def _read(note: Path) -> Filtered | None:
    try:
        written = json.loads(note.read_text())
    except FileNotFoundError:
        return None
    return Filtered(**{**written, "filter": TapFilter(**written["filter"])})


def hold(paths: Paths, domain: str, gate: str, foreign: Sequence[str]) -> Gate:
    """Note that a domain needs the gate; the first domain decides its backend."""
    chosen = current_gate(paths) or GATES[gate]
    files.private_directory(paths.gate)
    content = json.dumps({"gate": chosen.name, "foreign": list(foreign)})
    files.write_atomically(paths.gate / domain, content.encode(), 0o600)
    return chosen


def let_go(paths: Paths, domain: str) -> None:
    """Note that a domain no longer needs the gate."""
    files.discard(paths.gate / domain)


def let_all_go(paths: Paths) -> None:
    """Note that no domain needs the gate."""
    for domain in [*_domains(paths)]:
        let_go(paths, domain)


def is_needed(paths: Paths) -> bool:
    """Whether any domain needs the gate."""
    return any(True for _ in _domains(paths))


def current_gate(paths: Paths) -> Gate | None:
    """The gate that should be up; None if none should."""
    for domain in _domains(paths):
        return GATES[str(_need(paths, domain)["gate"])]
    return None


def foreign_names(paths: Paths) -> list[str]:
    """The foreign taps that the policy names."""
    needs = (_need(paths, domain) for domain in [*_domains(paths)])
    return list(dict.fromkeys(name for need in needs for name in need["foreign"]))


def _domains(paths: Paths) -> Iterator[str]:
    try:
        with os.scandir(paths.gate) as entries:
            yield from (entry.name for entry in entries if entry.name[0] != ".")
    except FileNotFoundError:
        return


def _need(paths: Paths, domain: str) -> dict[str, Any]:
    return dict(json.loads((paths.gate / domain).read_text()))

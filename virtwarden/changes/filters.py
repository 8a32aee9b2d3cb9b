# SPDX-License-Identifier: GPL-2.0-or-later
"""The changes that filter a domain's frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from virtwarden import gate
from virtwarden.changes import worked
from virtwarden.changes.base import Before, Change, Scope
from virtwarden.paths import Paths
from virtwarden.system import taps
from virtwarden.system.netfilter import TapFilter, rules_of
from virtwarden.system.taps import Tap


@dataclass(frozen=True)
class InstallFilters(Change):
    """Drop forged frames of a domain's taps, and raise the gate, which shuts out other taps.

    The gate is raised even for a domain without a tap, because a NIC can be attached later.
    `queues` has the number that the domain has of each tap, in the order of `filters`. A tap with
    another number refuses the change; without `queues` none does. `undo` removes the taps, but for
    those in `kept`, which libvirt did not make.
    """

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    domain: str
    backend: str
    gate: str
    foreign: tuple[str, ...]
    filters: tuple[TapFilter, ...]
    queues: tuple[int, ...] = ()
    kept: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Make the filters from dicts, which a journal gives."""
        filters = (f if isinstance(f, TapFilter) else TapFilter(**f) for f in self.filters)
        object.__setattr__(self, "filters", tuple(filters))

    def describe(self) -> str:
        each = [
            *(f"from {f.tap} with {_dropped(f)} ({self.backend})" for f in self.filters),
            f"from a tap that is not admitted ({self.gate})",
        ]
        return f"drop what comes {'; '.join(each)}"

    def capture(self, paths: Paths) -> Before:
        found = filter(None, (taps.find(each.tap) for each in self.filters))
        return {"taps": [[tap.name, tap.index] for tap in found if tap.name not in self.kept]}

    def apply(self, paths: Paths, before: Before) -> None:
        counts = {f.tap: n for f, n in zip(self.filters, self.queues, strict=False)}
        gate.install(
            paths,
            self.domain,
            self.backend,
            self.gate,
            self.foreign,
            self.filters,
            counts,
            self.kept,
        )
        for backend in {self.backend, self.gate}:
            worked.note_filtered_taps(paths, backend)

    def undo(self, paths: Paths, before: Before) -> str:
        gate.uninstall(paths, self.domain, [each.tap for each in self.filters], self.kept)
        # These were never noted if somebody else was at one of them.
        for name, index in before.get("taps", []):
            if not gate.owner_of(paths, name):
                taps.remove(Tap(name, index))
        return ""


def _dropped(promise: TapFilter) -> str:
    return ", ".join(dict.fromkeys(rule.drops for rule in rules_of(promise))) or "nothing wrong"


@dataclass(frozen=True)
class AdmitTaps(Change):
    """Admit the taps of a domain in `disabled` mode, if the gate is up for other domains.

    `queues` has the number that the domain has of each. A tap with another number stays shut out.
    """

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    taps: tuple[str, ...]
    queues: tuple[int, ...] = ()

    def describe(self) -> str:
        return f"admit {', '.join(self.taps)}, unfiltered"

    def capture(self, paths: Paths) -> Before:
        return {"taps": [[tap.name, tap.index] for tap in gate.shut_out(paths, self.taps)]}

    def apply(self, paths: Paths, before: Before) -> None:
        gate.admit(paths, dict(zip(self.taps, self.queues, strict=True)))

    def undo(self, paths: Paths, before: Before) -> str:
        gate.dismiss(paths, [Tap(name, index) for name, index in before["taps"]])
        return ""

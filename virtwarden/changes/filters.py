"""The changes that filter a domain's frames."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

from virtwarden import gate
from virtwarden.changes.base import Before, Scope
from virtwarden.paths import Paths
from virtwarden.system import files
from virtwarden.system.netfilter import BACKENDS, TapFilter, rules_of
from virtwarden.system.taps import Tap


@dataclass(frozen=True)
class InstallFilters:
    """Drop forged frames of a domain's taps, and raise the gate, which shuts out other taps.

    The gate is raised even for a domain without a tap, because a NIC can be attached later.
    """

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    domain: str
    backend: str
    gate: str
    foreign: tuple[str, ...]
    filters: tuple[TapFilter, ...]

    def __post_init__(self) -> None:
        """Make the filters from dicts, which a journal gives."""
        filters = (f if isinstance(f, TapFilter) else TapFilter(**f) for f in self.filters)
        object.__setattr__(self, "filters", tuple(filters))

    def describe(self) -> str:
        """See Change."""
        each = [
            *(f"from {f.tap} with {_dropped(f)} ({self.backend})" for f in self.filters),
            f"from a tap that is not admitted ({self.gate})",
        ]
        return f"drop what comes {'; '.join(each)}"

    def capture(self, paths: Paths) -> Before:
        """See Change."""
        return {}

    def apply(self, paths: Paths, before: Before) -> None:
        """See Change."""
        gate.install(paths, self.domain, self.backend, self.gate, self.foreign, self.filters)

    def undo(self, paths: Paths, before: Before) -> str:
        """See Change."""
        gate.uninstall(paths, self.domain, [each.tap for each in self.filters])
        return ""


def _dropped(promise: TapFilter) -> str:
    return ", ".join(dict.fromkeys(rule.drops for rule in rules_of(promise))) or "nothing wrong"


@dataclass(frozen=True)
class AdmitTaps:
    """Admit the taps of a domain in `disabled` mode, if the gate is up for other domains."""

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    taps: tuple[str, ...]

    def describe(self) -> str:
        """See Change."""
        return f"admit {', '.join(self.taps)}, unfiltered"

    def capture(self, paths: Paths) -> Before:
        """See Change."""
        return {"taps": [[tap.name, tap.index] for tap in gate.shut_out(paths, self.taps)]}

    def apply(self, paths: Paths, before: Before) -> None:
        """See Change."""
        gate.admit(paths, self.taps)

    def undo(self, paths: Paths, before: Before) -> str:
        """See Change."""
        gate.dismiss(paths, [Tap(name, index) for name, index in before["taps"]])
        return ""


@dataclass(frozen=True)
class InstallFilter:
    """The filter of one tap, as versions before the gate had it: none plans it any more.

    What such a version left in a journal is undone.
    """

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    domain: str
    backend: str
    tap: str
    mac: str
    deny_mac_spoofing: bool
    deny_arp_spoofing: bool
    deny_vlan_tags: bool

    def describe(self) -> str:
        """See Change."""
        return f"drop what comes from {self.tap} in another's name than {self.mac} ({self.backend})"

    def capture(self, paths: Paths) -> Before:
        """See Change."""
        return {}

    def apply(self, paths: Paths, before: Before) -> None:
        """See Change."""
        promise = TapFilter(
            self.tap,
            self.mac,
            deny_mac_spoofing=self.deny_mac_spoofing,
            deny_arp_spoofing=self.deny_arp_spoofing,
            deny_vlan_tags=self.deny_vlan_tags,
        )
        note = json.dumps({"domain": self.domain, "backend": self.backend})
        with files.locked(paths.filters):
            files.write_atomically(paths.filters / self.tap, note.encode(), 0o600)
            BACKENDS[self.backend].install([promise])

    def undo(self, paths: Paths, before: Before) -> str:
        """See Change. Whose filter a tap has is written down: another domain's is left."""
        note = paths.filters / self.tap
        with files.locked(paths.filters):
            if not note.exists():
                files.discard(note)
            elif json.loads(note.read_text())["domain"] == self.domain:
                BACKENDS[self.backend].remove([self.tap])
                files.discard(note)
        return ""

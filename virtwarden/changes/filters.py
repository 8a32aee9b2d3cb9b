"""The change that keeps a tap's frames honest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from virtwarden.changes.base import Before, Scope
from virtwarden.paths import Paths
from virtwarden.system import files, netfilter


@dataclass(frozen=True)
class InstallFilter:
    """Frames that a tap's guest sends in another's name are dropped in the kernel.

    A tap's name is used again as soon as its QEMU has ended, perhaps before this domain's release
    has come: whose filter a tap has is written down, and a filter that is another's is left.
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

    @property
    def promise(self) -> netfilter.TapFilter:
        """What the kernel must hold this tap to."""
        return netfilter.TapFilter(
            self.tap,
            self.mac,
            self.deny_mac_spoofing,
            self.deny_arp_spoofing,
            self.deny_vlan_tags,
        )

    def describe(self) -> str:
        """See Change."""
        denied = [
            what
            for what, wanted in (
                (f"source MAC other than {self.mac}", self.deny_mac_spoofing),
                (f"ARP sender other than {self.mac}", self.deny_arp_spoofing),
                ("VLAN tag", self.deny_vlan_tags),
            )
            if wanted
        ]
        return f"drop what comes from {self.tap} with {', '.join(denied)} ({self.backend})"

    def capture(self, paths: Paths) -> Before:
        """See Change."""
        return {}

    def apply(self, paths: Paths, before: Before) -> None:
        """See Change."""
        with files.locked(paths.filters):
            former = _owner(self._note(paths))
            if former is not None and former["backend"] != self.backend:
                netfilter.BACKENDS[former["backend"]].remove(self.tap)
            ours = json.dumps({"domain": self.domain, "backend": self.backend})
            files.write_atomically(self._note(paths), ours.encode(), 0o600)
            netfilter.BACKENDS[self.backend].install(self.promise)

    def undo(self, paths: Paths, before: Before) -> str:
        """See Change."""
        with files.locked(paths.filters):
            owner = _owner(self._note(paths))
            if owner is not None and owner["domain"] == self.domain:
                netfilter.BACKENDS[self.backend].remove(self.tap)
                self._note(paths).unlink()
        return ""

    def _note(self, paths: Paths) -> Path:
        return paths.filters / self.tap


def _owner(note: Path) -> dict[str, str] | None:
    try:
        return dict(json.loads(note.read_text()))
    except FileNotFoundError:
        return None

"""The change that keeps a tap's frames honest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from virtwarden.changes.base import Before, Scope
from virtwarden.paths import Paths
from virtwarden.system import netfilter


@dataclass(frozen=True)
class InstallFilter:
    """Frames that a tap's guest sends in another's name are dropped in the kernel."""

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

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
        netfilter.BACKENDS[self.backend].install(self.promise)

    def undo(self, paths: Paths, before: Before) -> str:
        """See Change."""
        netfilter.BACKENDS[self.backend].remove(self.tap)
        return ""

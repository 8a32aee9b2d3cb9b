# SPDX-License-Identifier: GPL-2.0-or-later
"""The change that keeps a tap in its zone on a bridge of several zones."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import ClassVar

from virtwarden.changes.base import Before, Change, Scope
from virtwarden.paths import Paths
from virtwarden.system import bridges, taps
from virtwarden.system.bridges import Port
from virtwarden.system.taps import Tap


@dataclass(frozen=True)
class SetBridgePort(Change):
    """Make a tap's port on its bridge an access port of one VLAN, or isolate it, or both.

    A `vlan` of 0 leaves the VLANs as they are.
    """

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    tap: str
    vlan: int
    isolated: bool

    def describe(self) -> str:
        parts = [f"only in VLAN {self.vlan}"] if self.vlan else []
        parts += ["isolated from the zone's other domains"] if self.isolated else []
        return f"put {self.tap} {' and '.join(parts)}"

    def capture(self, paths: Paths) -> Before:
        tap = taps.find(self.tap)
        port = asdict(bridges.port(self.tap)) if tap else {}
        return {"index": tap.index if tap else 0, "port": port}

    def apply(self, paths: Paths, before: Before) -> None:
        wanted = Port(isolated=self.isolated)
        if self.vlan:
            wanted = replace(wanted, vlans=(self.vlan,), pvid=self.vlan, untagged=(self.vlan,))
        bridges.set_port(self.tap, wanted)

    def undo(self, paths: Paths, before: Before) -> str:
        """libvirt removes the tap when the domain ends, and the port with it."""
        if before["port"] and taps.find(self.tap) == Tap(self.tap, before["index"]):
            bridges.set_port(self.tap, Port(**before["port"]))
        return ""

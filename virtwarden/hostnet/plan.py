# SPDX-License-Identifier: GPL-2.0-or-later
"""What the policy says of the host's network, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from virtwarden.errors import PolicyError
from virtwarden.policy import Policy, Zone


@dataclass(frozen=True)
class ZoneBridge:
    """A bridge and the VLANs of the bond that reach it: one, or several that it keeps apart itself.

    A zone's first bridge has the zone's VLAN. What is on its other bridges stays on this host.
    """

    name: str
    zones: tuple[str, ...]
    vlans: tuple[int, ...]

    @property
    def is_vlan_aware(self) -> bool:
        """Whether it must keep VLANs apart."""
        return len(self.zones) > 1


@dataclass(frozen=True)
class HostPlan:
    """The host's network as the policy wants it."""

    bond: str
    slaves: tuple[str, ...]
    management: str
    addresses: tuple[str, ...]
    gateway: str
    dns: tuple[str, ...]
    bridges: tuple[ZoneBridge, ...]

    def uplink(self, bridge: ZoneBridge) -> str:
        """The port that connects a bridge with the bond; empty where none does."""
        if bridge.is_vlan_aware:
            return self.bond
        return f"{self.bond}.{bridge.vlans[0]}" if bridge.vlans else ""

    @property
    def carriers(self) -> tuple[str, ...]:
        """The interfaces that carry zones' frames; nothing of the host's own may be on them."""
        names = [self.bond, *self.slaves]
        for bridge in self.bridges:
            names += [bridge.name, self.uplink(bridge)]
        return tuple(dict.fromkeys(filter(None, names)))


def read(policy: Policy) -> HostPlan:
    """The plan. Raises PolicyError where the policy leaves out what the plan needs."""
    host = {key: policy.host[f"host.{key}"].value for key in ("bond", "slaves", "management")}
    missing = [f"host.{key}" for key, value in host.items() if not value]
    if missing:
        raise PolicyError(
            f"the policy does not say {' and '.join(missing)}",
            where="/etc/virt-warden/policy.toml",
            fix="write them under [host]: man virt-warden.toml",
        )
    zones = policy.zones
    untold = [name for name, zone in zones.items() if zone.bridges and not zone.vlan]
    if untold:
        raise PolicyError(
            f"zone {untold[0]} has bridges and no vlan: nothing tells its frames apart on"
            f" {host['bond']}",
            where=policy.where(f"zones.{untold[0]}.bridges"),
            fix=f"write zones.{untold[0]}.vlan",
        )
    return HostPlan(
        **host,
        addresses=policy.host["host.management_addresses"].value,
        gateway=policy.host["host.management_gateway"].value,
        dns=policy.host["host.management_dns"].value,
        bridges=_bridges(zones),
    )


def _bridges(zones: Mapping[str, Zone]) -> tuple[ZoneBridge, ...]:
    serving: dict[str, list[str]] = {}
    for name, zone in zones.items():
        for bridge in zone.bridges:
            serving.setdefault(bridge, []).append(name)
    return tuple(
        ZoneBridge(bridge, tuple(names), _vlans([zones[name] for name in names], bridge))
        for bridge, names in serving.items()
    )


def _vlans(zones: list[Zone], bridge: str) -> tuple[int, ...]:
    return tuple(sorted(zone.vlan for zone in zones if zone.bridges[0] == bridge))

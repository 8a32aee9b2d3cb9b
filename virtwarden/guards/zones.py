# SPDX-License-Identifier: GPL-2.0-or-later
"""Guard `zones`: a NIC is on its zone's bridge and in its zone's VLAN, or the VM does not start."""

from __future__ import annotations

from collections.abc import Iterator

from virtwarden.changes import Change, SetBridgePort
from virtwarden.domain.model import Nic
from virtwarden.errors import Refusal
from virtwarden.guards.base import Case, Op
from virtwarden.policy import Zone
from virtwarden.system.process import Process

NAME = "zones"


def review(case: Case) -> list[Refusal]:
    return [
        refusal
        for place, nic in enumerate(case.domain.nics)
        for refusal in _review_nic(case, place, nic)
    ]


def _review_nic(case: Case, place: int, nic: Nic) -> list[Refusal]:
    bridge = _bridge(case, nic)
    serving = [name for name, zone in case.rules.zones.items() if _serves(zone, bridge, nic)]
    if not case.rules.zone:
        return [_zoneless(case, nic, serving)] if serving else []
    if nic.kind == "ethernet" and case.op is Op.PREPARE:
        return []  # whoever makes the tap puts it on a bridge, or not
    own = [name for name in serving if name in case.rules.zone]
    named = case.rules.nic(nic.mac, place).zone
    if named and named in own:
        own = [named]
    if not own or (named and named not in own):
        return [_elsewhere(case, nic, bridge, named)]
    if len(own) > 1:
        return [_ambiguous(case, nic, own)]
    return _review_vlan(case, nic, bridge, own[0])


def _serves(zone: Zone, bridge: str, nic: Nic) -> bool:
    # Of a libvirt network that is a bridge, the running domain's XML says both.
    return nic.network in zone.networks or (bool(bridge) and bridge in zone.bridges)


def _bridge(case: Case, nic: Nic) -> str:
    """The NIC's bridge: from the kernel once the tap exists, before that from the XML."""
    if case.op is Op.PREPARE or not nic.tap:
        return nic.bridge
    return case.facts.bridge_of(nic.tap)


def _zoneless(case: Case, nic: Nic, serving: list[str]) -> Refusal:
    name = serving[0]
    return case.refusal(
        f"on zone {name}'s {_place(case, nic)}, but the domain is in no zone",
        where=_where(case, nic),
        fix=f"{case.setting('zone', [name])}; or another bridge: {case.edit}",
    )


def _elsewhere(case: Case, nic: Nic, bridge: str, named: str) -> Refusal:
    wanted = [named] if named else list(case.rules.zone)
    places = [place for name in wanted for place in _places(case.rules.zones.get(name, Zone()))]
    return case.refusal(
        f"on {_place(case, nic)}, which is not one of zone {' or '.join(wanted)}",
        where=_where(case, nic),
        fix=f"put it on {' or '.join(places)}: {case.edit}",
    )


def _ambiguous(case: Case, nic: Nic, own: list[str]) -> Refusal:
    return case.refusal(
        f"on {_place(case, nic)}, which serves zones {' and '.join(own)}, both the domain's",
        where=_where(case, nic),
        fix=case.setting("zone", own[0], f'nics."{nic.mac.lower()}"'),
    )


def _review_vlan(case: Case, nic: Nic, bridge: str, name: str) -> list[Refusal]:
    """Refuse a bridge of several zones that does not separate their VLANs."""
    zone = case.rules.zones[name]
    shared = [other for other, each in case.rules.zones.items() if bridge in each.bridges]
    if not bridge or len(shared) < 2 or case.facts.is_vlan_aware(bridge):
        return []
    return [
        case.refusal(
            f"on {bridge}, which serves zones {' and '.join(shared)} but does not separate"
            f" VLAN {zone.vlan}",
            where=_where(case, nic),
            fix=f"ip link set {bridge} type bridge vlan_filtering 1, with its uplinks tagged;"
            " or a bridge for each zone",
        )
    ]


def _where(case: Case, nic: Nic) -> str:
    return f"NIC {nic.mac} ({case.rules.where('zone')})"


def _place(case: Case, nic: Nic) -> str:
    if nic.network:
        return f"libvirt network {nic.network}"
    bridge = _bridge(case, nic)
    return f"bridge {bridge}" if bridge else f"no bridge (type {nic.kind})"


def _places(zone: Zone) -> list[str]:
    networks = [f"libvirt network {network}" for network in zone.networks]
    return [*(f"bridge {bridge}" for bridge in zone.bridges), *networks]


def plan(case: Case) -> list[Change]:
    """Before `network`, which admits a tap once it is in its place."""
    return [*_ports(case)] if case.op is Op.START else []


def _ports(case: Case) -> Iterator[SetBridgePort]:
    for place, nic in enumerate(case.domain.nics):
        bridge = _bridge(case, nic)
        zone = _zone(case, place, nic, bridge)
        if zone is None or not (nic.tap and bridge):
            continue
        vlan = zone.vlan if bridge in zone.bridges and case.facts.is_vlan_aware(bridge) else 0
        if vlan or zone.peers == "deny":
            yield SetBridgePort(tap=nic.tap, vlan=vlan, isolated=zone.peers == "deny")


def _zone(case: Case, place: int, nic: Nic, bridge: str) -> Zone | None:
    named = case.rules.nic(nic.mac, place).zone
    for name in (named,) if named else case.rules.zone:
        zone = case.rules.zones.get(name)
        if zone is not None and _serves(zone, bridge, nic):
            return zone
    return None


def verify(case: Case, process: Process) -> list[str]:
    breaches = [f"{refusal.where}: {refusal.what}" for refusal in review(case)]
    for wanted in _ports(case):
        port = case.facts.port(wanted.tap)
        if wanted.vlan and not port.is_access_port_of(wanted.vlan):
            breaches.append(f"tap {wanted.tap} is not an access port of VLAN {wanted.vlan}")
        if wanted.isolated and not port.isolated:
            breaches.append(
                f'tap {wanted.tap} can reach the zone\'s other domains (peers = "deny")'
            )
    return breaches

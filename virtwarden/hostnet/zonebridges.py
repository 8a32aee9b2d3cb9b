# SPDX-License-Identifier: GPL-2.0-or-later
"""The zones' bridges: each has its VLAN of the bond, and no other ports but VMs' taps."""

from __future__ import annotations

from collections.abc import Iterator

from virtwarden.hostnet.finding import RENDER, Finding
from virtwarden.hostnet.plan import HostPlan, ZoneBridge
from virtwarden.hostnet.seen import Link, Network


def bridges(plan: HostPlan, network: Network) -> Iterator[Finding]:
    """What is wrong with any of the bridges."""
    for bridge in plan.bridges:
        yield from _bridge(plan, network, bridge)
    yield from _other_ends(plan, network)


def _bridge(plan: HostPlan, network: Network, bridge: ZoneBridge) -> Iterator[Finding]:
    link = network.links.get(bridge.name)
    zones = " and ".join(bridge.zones)
    if link is None or link.kind != "bridge":
        there = "there is no such interface" if link is None else "it is not a bridge"
        fix = f"{RENDER}, or: ip link add {bridge.name} type bridge"
        yield Finding("zone-bridge", bridge.name, there, f"zone {zones} has no network", fix)
        return
    if not link.is_up:
        fix = f"ip link set {bridge.name} up"
        yield Finding("zone-bridge", bridge.name, "it is down", f"zone {zones} has no network", fix)
    if bridge.is_vlan_aware:
        yield from _trunk(plan, network, bridge)
    else:
        yield from _vlan_interfaces(plan, network, bridge)
    yield from _other_ports(plan, network, bridge, zones)


def _vlan_interfaces(plan: HostPlan, network: Network, bridge: ZoneBridge) -> Iterator[Finding]:
    """The zone's VLAN is tagged on the bond and ends in the zone's bridge."""
    for vlan in bridge.vlans:
        ends = _ends(plan, network, bridge, vlan)
        if not ends:
            yield Finding(
                "zone-vlan",
                bridge.name,
                f"VLAN {vlan} of {plan.bond} does not end in it",
                f"zone {bridge.zones[0]} does not reach its network",
                f"ip link add {plan.uplink(bridge)} link {plan.bond} type vlan id {vlan};"
                f" ip link set {plan.uplink(bridge)} master {bridge.name} up",
            )
        for link in ends:
            yield from _vlan_state(link, vlan)


def _ends(plan: HostPlan, network: Network, bridge: ZoneBridge, vlan: int) -> list[Link]:
    """The ports where a VLAN of the bond ends on its bridge, whatever their names; one is right."""
    return [
        link
        for link in network.ports(bridge.name)
        if link.kind == "vlan" and link.parent == plan.bond and link.details.get("id") == vlan
    ]


def _other_ends(plan: HostPlan, network: Network) -> Iterator[Finding]:
    """Interfaces on top of what carries zones' frames; each gets a copy of them, or a part."""
    zones = {vlan for bridge in plan.bridges for vlan in bridge.vlans}
    ends = [
        link.name
        for bridge in plan.bridges
        for vlan in bridge.vlans
        for link in _ends(plan, network, bridge, vlan)
    ]
    trunks, carriers = (plan.bond, *plan.slaves), (*plan.carriers, *ends)
    for link in network.links.values():
        # The parent of a veth is its other end.
        if link.parent not in carriers or link.name in ends or link.kind == "veth":
            continue
        number = link.details.get("id")
        if link.kind == "vlan" and link.parent in trunks and number not in zones:
            continue
        what = f"VLAN {number}" if link.kind == "vlan" else f"a {link.kind}"
        yield Finding(
            "zone-vlan",
            link.name,
            f"it is {what} of {link.parent}, beside the zones' bridges",
            "zones' frames reach what is not in them",
            f"ip link delete {link.name}",
        )


def _vlan_state(link: Link, vlan: int) -> Iterator[Finding]:
    if not link.is_up:
        fix = f"ip link set {link.name} up"
        yield Finding("zone-vlan", link.name, "it is down", f"VLAN {vlan} is cut off", fix)
    if link.details.get("protocol", "802.1Q") != "802.1Q":
        yield Finding(
            "zone-vlan",
            link.name,
            f"it tags with {link.details['protocol']}",
            "switches know the zones' VLANs by 802.1Q tags",
            f"ip link delete {link.name}; {RENDER}",
        )


def _trunk(plan: HostPlan, network: Network, bridge: ZoneBridge) -> Iterator[Finding]:
    """A bridge of several zones keeps their VLANs apart, and gets them tagged from the bond."""
    link, name = network.links[bridge.name], bridge.name
    if not link.details.get("vlan_filtering"):
        fix = f"ip link set {name} type bridge vlan_filtering 1"
        why = "its zones are one network"
        yield Finding("zone-bridge", name, "it does not keep VLANs apart", why, fix)
        return
    bond = network.links.get(plan.bond)
    if bond is None or bond.master != name:
        fix = f"ip link set {plan.bond} master {name}"
        yield Finding("zone-vlan", name, f"{plan.bond} is no port of it", "it has no uplink", fix)
        return
    there = {port.vlan: port.tagged for port in network.port_vlans.get(plan.bond, ())}
    for vlan in bridge.vlans:
        if not there.get(vlan, False):
            how = "untagged" if vlan in there else "not"
            fix = f"bridge vlan add dev {plan.bond} vid {vlan}"
            why = "its zone does not reach its network, or another one's"
            yield Finding("zone-vlan", name, f"VLAN {vlan} is {how} on {plan.bond}", why, fix)
    for vlan in sorted(set(there) - set(bridge.vlans)):
        fix = f"bridge vlan del dev {plan.bond} vid {vlan}"
        why = "frames of a VLAN that is no zone's come onto the zones' bridge"
        yield Finding("zone-vlan", name, f"VLAN {vlan} is on {plan.bond} too", why, fix)


def _other_ports(
    plan: HostPlan, network: Network, bridge: ZoneBridge, zones: str
) -> Iterator[Finding]:
    if bridge.is_vlan_aware:
        meant = [plan.bond]
    else:
        meant = [end.name for vlan in bridge.vlans for end in _ends(plan, network, bridge, vlan)]
    for port in network.ports(bridge.name):
        if port.name not in meant and port.kind != "tun":
            yield Finding(
                "zone-bridge",
                bridge.name,
                f"{port.name} is a port of it, and neither its uplink nor a VM's tap",
                f"zone {zones} has a way in and out that its VLAN's switch does not see",
                f"ip link set {port.name} nomaster",
            )

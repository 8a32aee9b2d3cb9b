# SPDX-License-Identifier: GPL-2.0-or-later
"""The bond: two or more watched interfaces, one of which carries the frames of all zones."""

from __future__ import annotations

from collections.abc import Iterator

from virtwarden.hostnet.finding import RENDER, Finding
from virtwarden.hostnet.plan import HostPlan
from virtwarden.hostnet.seen import Network


def bond(plan: HostPlan, network: Network) -> Iterator[Finding]:
    """What is wrong with the bond."""
    link, name = network.links.get(plan.bond), plan.bond
    spare = "when one interface, cable or switch fails, all zones lose the network"
    if link is None or link.kind != "bond":
        there = "there is no such interface" if link is None else "it is not a bond"
        yield Finding("bond", name, there, spare, f"{RENDER}, or: ip link add {name} type bond")
        return
    details = link.details
    if details.get("mode") != "active-backup":
        yield Finding(
            "bond-mode",
            name,
            f"its mode is {details.get('mode')}, not active-backup",
            "other modes need the switch's help, and send one zone's frames on two ways at once",
            f"ip link set {name} down; ip link set {name} type bond mode active-backup",
        )
    if not details.get("miimon") and not details.get("arp_interval"):
        yield Finding(
            "bond-monitoring",
            name,
            "nothing watches its links",
            "it goes on sending into a dead cable",
            f"ip link set {name} type bond miimon 100",
        )
    aware = [bridge.name for bridge in plan.bridges if bridge.is_vlan_aware]
    if link.master and link.master not in aware:
        why = "whoever is on that bridge reaches every zone by sending tagged frames"
        fix = f"ip link set {name} nomaster"
        yield Finding("bond", name, f"it is a port of {link.master}", why, fix)
    slaves = network.ports(name)
    yield from _slaves(plan, [slave.name for slave in slaves], spare)
    for each in (link, *slaves):
        state = str(each.slave_details.get("mii_status", "UP"))
        if not (each.is_up and each.has_carrier and state.upper() == "UP"):
            yield Finding(
                "link",
                each.name,
                "its link is down",
                spare,
                f"ip link set {each.name} up, and look at its cable: ethtool {each.name}",
            )


def _slaves(plan: HostPlan, there: list[str], spare: str) -> Iterator[Finding]:
    for name in sorted(set(plan.slaves) - set(there)):
        fix = f"ip link set {name} down; ip link set {name} master {plan.bond}"
        yield Finding("bond-slaves", name, f"it is not in {plan.bond}", spare, fix)
    for name in sorted(set(there) - set(plan.slaves)):
        why = "frames of all zones leave by an interface that the policy does not name"
        fix = f"ip link set {name} nomaster, or add it to host.slaves"
        yield Finding("bond-slaves", name, f"it is in {plan.bond} unplanned", why, fix)
    if len(plan.slaves) < 2:
        what = f"host.slaves has {len(plan.slaves)} of them"
        yield Finding("bond-slaves", plan.bond, what, spare, "put a second interface there")

# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of systemd-networkd (systemd.netdev(5), systemd.network(5))."""

from __future__ import annotations

from virtwarden.hostnet.plan import HostPlan, ZoneBridge
from virtwarden.hostnet.render import sysctl

_DIRECTORY = "/etc/systemd/network"
# No address, and nothing that asks the network for one.
_MUTE = ["LinkLocalAddressing=no", "IPv6AcceptRA=no", "LLDP=no", "EmitLLDP=no"]


def render(plan: HostPlan) -> dict[str, str]:
    """The files by their paths."""
    files = {
        f"10-{plan.bond}.netdev": [
            *_section("NetDev", f"Name={plan.bond}", "Kind=bond"),
            *_section("Bond", "Mode=active-backup", "MIIMonitorSec=100ms"),
        ],
        f"20-{plan.bond}-slaves.network": [
            *_section("Match", f"Name={' '.join(plan.slaves)}"),
            *_section("Network", f"Bond={plan.bond}", *_MUTE),
        ],
        f"30-{plan.bond}.network": _bond(plan),
        f"30-{plan.management}.network": _management(plan),
    }
    for bridge in plan.bridges:
        files |= _bridge(plan, bridge)
    made = {f"{_DIRECTORY}/{name}": "\n".join(lines) for name, lines in sorted(files.items())}
    return made | sysctl.render(plan)


def _section(name: str, *lines: str) -> list[str]:
    return [f"[{name}]", *lines, ""]


def _bond(plan: HostPlan) -> list[str]:
    trunks = [bridge for bridge in plan.bridges if bridge.is_vlan_aware]
    tagged = [plan.uplink(bridge) for bridge in plan.bridges if not bridge.is_vlan_aware]
    lines = [f"VLAN={name}" for name in tagged if name]
    lines += [f"Bridge={bridge.name}" for bridge in trunks]
    found = [
        *_section("Match", f"Name={plan.bond}"),
        *_section("Network", *lines, *_MUTE),
    ]
    for bridge in trunks:
        for vlan in bridge.vlans:
            found += _section("BridgeVLAN", f"VLAN={vlan}")
    return found


def _bridge(plan: HostPlan, bridge: ZoneBridge) -> dict[str, list[str]]:
    aware = ["VLANFiltering=yes", "DefaultPVID=none"] if bridge.is_vlan_aware else []
    files = {
        f"10-{bridge.name}.netdev": [
            *_section("NetDev", f"Name={bridge.name}", "Kind=bridge"),
            *_section("Bridge", "STP=no", "ForwardDelaySec=0", *aware),
        ],
        f"30-{bridge.name}.network": [
            *_section("Match", f"Name={bridge.name}"),
            *_section("Network", *_MUTE, "ConfigureWithoutCarrier=yes"),
            *_section("Link", "RequiredForOnline=no"),
        ],
    }
    uplink = plan.uplink(bridge)
    if uplink and not bridge.is_vlan_aware:
        files[f"10-{uplink}.netdev"] = [
            *_section("NetDev", f"Name={uplink}", "Kind=vlan"),
            *_section("VLAN", f"Id={bridge.vlans[0]}"),
        ]
        files[f"30-{uplink}.network"] = [
            *_section("Match", f"Name={uplink}"),
            *_section("Network", f"Bridge={bridge.name}", *_MUTE),
        ]
    return files


def _management(plan: HostPlan) -> list[str]:
    lines = [f"Address={address}" for address in plan.addresses] or ["DHCP=yes"]
    lines += [f"Gateway={plan.gateway}"] if plan.gateway else []
    lines += [f"DNS={server}" for server in plan.dns]
    return [*_section("Match", f"Name={plan.management}"), *_section("Network", *lines)]

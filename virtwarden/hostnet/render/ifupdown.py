# SPDX-License-Identifier: GPL-2.0-or-later
"""A file of ifupdown (interfaces(5)), with the packages ifenslave, vlan and bridge-utils."""

from __future__ import annotations

import ipaddress

from virtwarden.hostnet.plan import HostPlan, ZoneBridge
from virtwarden.hostnet.render import sysctl

_PATH = "/etc/network/interfaces.d/virt-warden"


def render(plan: HostPlan) -> dict[str, str]:
    """The files by their paths."""
    lines = ["# apt install ifenslave vlan bridge-utils"]
    for slave in plan.slaves:
        lines += _stanza(slave, "manual", f"bond-master {plan.bond}")
    lines += _stanza(
        plan.bond,
        "manual",
        f"bond-slaves {' '.join(plan.slaves)}",
        "bond-mode active-backup",
        "bond-miimon 100",
    )
    for bridge in plan.bridges:
        lines += _bridge(plan, bridge)
    lines += _management(plan)
    return {_PATH: "\n".join(lines)} | sysctl.render(plan)


def _stanza(name: str, method: str, *options: str, family: str = "inet") -> list[str]:
    auto = [f"auto {name}"] if family == "inet" else []
    return [*auto, f"iface {name} {family} {method}", *(f"    {each}" for each in options), ""]


def _bridge(plan: HostPlan, bridge: ZoneBridge) -> list[str]:
    uplink = plan.uplink(bridge)
    lines: list[str] = []
    options = [f"bridge_ports {uplink or 'none'}", "bridge_stp off", "bridge_fd 0"]
    if bridge.is_vlan_aware:
        aware = "vlan_filtering 1 vlan_default_pvid 0"
        options.append(f"pre-up ip link add {bridge.name} type bridge {aware} || true")
        options += [f"up bridge vlan add dev {uplink} vid {vlan}" for vlan in bridge.vlans]
    elif uplink:
        lines += _stanza(uplink, "manual", f"vlan-raw-device {plan.bond}")
    return [*lines, *_stanza(bridge.name, "manual", *options)]


def _management(plan: HostPlan) -> list[str]:
    if not plan.addresses:
        return _stanza(plan.management, "dhcp")
    lines: list[str] = []
    gateway = plan.gateway
    for address in plan.addresses:
        version = ipaddress.ip_interface(address).version
        options = [f"address {address}"]
        if gateway and ipaddress.ip_address(gateway).version == version:
            options.append(f"gateway {gateway}")
            gateway = ""
        options += [f"dns-nameservers {' '.join(plan.dns)}"] if plan.dns and not lines else []
        family = "inet" if version == 4 else "inet6"
        lines += _stanza(plan.management, "static", *options, family=family)
    return lines if lines[0].startswith("auto") else [f"auto {plan.management}", *lines]

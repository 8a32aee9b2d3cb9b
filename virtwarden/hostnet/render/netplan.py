# SPDX-License-Identifier: GPL-2.0-or-later
"""A file of netplan (netplan(5)), which hands it to systemd-networkd."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from virtwarden.errors import PolicyError
from virtwarden.hostnet.plan import HostPlan
from virtwarden.hostnet.render import sysctl

_PATH = "/etc/netplan/60-virt-warden.yaml"
_MUTE: Mapping[str, Any] = {
    "dhcp4": False,
    "dhcp6": False,
    "accept-ra": False,
    "link-local": [],
}


def render(plan: HostPlan) -> dict[str, str]:
    """The files by their paths. Raises PolicyError for a VLAN-aware bridge: it has none."""
    for bridge in plan.bridges:
        if bridge.is_vlan_aware:
            raise PolicyError(
                f"netplan has no VLAN-aware bridges, and {bridge.name} serves zones"
                f" {' and '.join(bridge.zones)}",
                fix="--format networkd, or a bridge for each zone",
            )
    vlans = {
        plan.uplink(bridge): {"id": bridge.vlans[0], "link": plan.bond, **_MUTE}
        for bridge in plan.bridges
        if bridge.vlans
    }
    bridges = {
        bridge.name: {
            "interfaces": [name for name in [plan.uplink(bridge)] if name],
            "parameters": {"stp": False, "forward-delay": 0},
            "optional": True,
            **_MUTE,
        }
        for bridge in plan.bridges
    }
    parameters = {"mode": "active-backup", "mii-monitor-interval": 100}
    network = {
        "version": 2,
        "renderer": "networkd",
        "ethernets": dict.fromkeys(plan.slaves, _MUTE) | {plan.management: _management(plan)},
        "bonds": {
            plan.bond: {"interfaces": [*plan.slaves], "parameters": parameters, **_MUTE},
        },
        **({"vlans": vlans} if vlans else {}),
        **({"bridges": bridges} if bridges else {}),
    }
    lines = [*_yaml({"network": network}, 0), ""]
    return {_PATH: "\n".join(lines)} | sysctl.render(plan)


def _management(plan: HostPlan) -> dict[str, Any]:
    if not plan.addresses:
        return {"dhcp4": True, "dhcp6": True}
    found: dict[str, Any] = {"addresses": [*plan.addresses]}
    if plan.gateway:
        version = ipaddress.ip_address(plan.gateway).version
        default = "0.0.0.0/0" if version == 4 else "::/0"
        found["routes"] = [{"to": default, "via": plan.gateway}]
    if plan.dns:
        found["nameservers"] = {"addresses": [*plan.dns]}
    return found


def _yaml(tree: Mapping[str, Any], depth: int) -> list[str]:
    """As much of YAML as this needs: tables, and lists of plain words or small tables."""
    lines = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            lines += [f"{'  ' * depth}{key}:", *_yaml(value, depth + 1)]
        else:
            lines.append(f"{'  ' * depth}{key}: {_flow(value)}")
    return lines


def _flow(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_flow(item) for item in value)}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)

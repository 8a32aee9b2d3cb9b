# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's network as the kernel has it (ip(8), bridge(8), ss(8), sysctl(8))."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from virtwarden.system.bridges import BRIDGE, IP, memberships
from virtwarden.system.run import run

_SS = "/usr/bin/ss"
_SYSCTL = Path("/proc/sys")
_PROGRAM = re.compile(r'\(\("([^"]+)"')


@dataclass(frozen=True)
class Link:
    """One interface; `kind` is empty for hardware, `details` are those of its kind."""

    name: str
    kind: str = ""
    master: str = ""
    parent: str = ""
    is_up: bool = True
    has_carrier: bool = True
    addresses: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    slave_details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PortVlan:
    """A VLAN that a bridge's port is in, and whether its frames are tagged there."""

    vlan: int
    tagged: bool


@dataclass(frozen=True)
class Listener:
    """A TCP socket that waits for connections: on one `device`, or on all where that is empty."""

    address: str
    port: int
    device: str = ""
    program: str = ""


@dataclass(frozen=True)
class Network:
    """Everything that was seen."""

    links: Mapping[str, Link]
    port_vlans: Mapping[str, tuple[PortVlan, ...]] = field(default_factory=dict)
    listeners: tuple[Listener, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)

    def ports(self, bridge: str) -> list[Link]:
        """The ports of a bridge, or the slaves of a bond."""
        return [link for link in self.links.values() if link.master == bridge]

    def setting(self, key: str, interface: str) -> str:
        """A setting of an interface such as `ipv4/rp_filter`; empty where the kernel has none."""
        family, name = key.split("/")
        return self.settings.get(f"net/{family}/conf/{interface}/{name}", "")


def look() -> Network:
    """The host's network as it is now. Raises CommandError."""
    links = {link.name: link for link in map(_link, json.loads(run(IP, "-j", "-d", "address")))}
    return Network(
        links=links,
        port_vlans=_port_vlans(json.loads(run(BRIDGE, "-j", "vlan") or "[]")),
        listeners=listeners(run(_SS, "-Hltnp")),
        settings=_settings(links),
    )


def _link(found: Mapping[str, Any]) -> Link:
    information = found.get("linkinfo", {})
    flags = found.get("flags", [])
    return Link(
        name=found["ifname"],
        kind=information.get("info_kind", ""),
        master=found.get("master", ""),
        parent=found.get("link") or "",
        is_up="UP" in flags,
        has_carrier="LOWER_UP" in flags,
        addresses=tuple(
            f"{address['local']}/{address['prefixlen']}"
            for address in found.get("addr_info", [])
            if "local" in address
        ),
        details=information.get("info_data", {}),
        slave_details=information.get("info_slave_data", {}),
    )


def _port_vlans(found: list[Mapping[str, Any]]) -> dict[str, tuple[PortVlan, ...]]:
    return {
        port["ifname"]: tuple(
            PortVlan(vlan, "Egress Untagged" not in flags) for vlan, flags in memberships(port)
        )
        for port in found
    }


def listeners(listed: str) -> tuple[Listener, ...]:
    """The sockets that `ss -Hltnp` lists."""
    found = []
    for line in listed.splitlines():
        words = line.split()
        if len(words) < 4:
            continue
        where, _, port = words[3].rpartition(":")
        address, _, device = where.partition("%")
        program = _PROGRAM.search(line)
        found.append(
            Listener(
                address=address.strip("[]").replace("*", "::"),
                port=int(port),
                device=device.strip("]"),
                program=program[1] if program else "",
            )
        )
    return tuple(found)


def _settings(links: Mapping[str, Link]) -> dict[str, str]:
    keys = [f"net/bridge/bridge-nf-call-{what}tables" for what in ("ip", "ip6", "arp")]
    for name in ("all", *links):
        keys += [f"net/ipv4/conf/{name}/{key}" for key in ("rp_filter", "arp_ignore", "forwarding")]
        keys += [f"net/ipv6/conf/{name}/{key}" for key in ("disable_ipv6", "forwarding")]
    found = {}
    for key in keys:
        try:
            found[key] = (_SYSCTL / key).read_text().strip()
        except OSError:
            continue
    return found

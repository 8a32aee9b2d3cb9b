# SPDX-License-Identifier: GPL-2.0-or-later
"""The host itself: on no zone's network, and reachable only at its management interface."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from virtwarden.hostnet.finding import RENDER, Finding
from virtwarden.hostnet.plan import HostPlan
from virtwarden.hostnet.seen import Link, Listener, Network

# IANA, Service Name and Transport Protocol Port Number Registry; libvirt's remote.html
_SSH, _LIBVIRT, _LIBVIRT_TLS = 22, 16509, 16514
_GUARDED_PORTS = {_SSH: "SSH", _LIBVIRT: "libvirt", _LIBVIRT_TLS: "libvirt over TLS"}
_GUARDED_PROGRAMS = {
    "sshd": "SSH",
    "libvirtd": "libvirt",
    "virtproxyd": "libvirt",
    "virtqemud": "libvirt",
}
_QEMU = re.compile(r"qemu-system-\w+")


def exposure(plan: HostPlan, network: Network) -> Iterator[Finding]:
    """Where VMs can reach the host."""
    yield from _addresses(plan, network)
    yield from _management(plan, network)
    yield from _reachable(plan, network)
    yield from _settings(plan, network)


def _addresses(plan: HostPlan, network: Network) -> Iterator[Finding]:
    for name in plan.carriers:
        link = network.links.get(name)
        for address in link.addresses if link else ():
            yield Finding(
                "host-address",
                name,
                f"the host has address {address} on it",
                "VMs of the zone can reach the host there, and all that listens on it",
                f"ip address delete {address} dev {name}",
            )


def _management(plan: HostPlan, network: Network) -> Iterator[Finding]:
    link, name = network.links.get(plan.management), plan.management
    alone = "the host must be reached when the zones' network fails or is under attack"
    if link is None:
        fix = "name another one in host.management, or put it in"
        yield Finding("management", name, "there is no such interface", alone, fix)
        return
    if link.kind:
        fix = "name a network card of its own in host.management"
        yield Finding("management", name, f"it is not a card but a {link.kind}", alone, fix)
    if link.master:
        kind = network.links[link.master].kind if link.master in network.links else "bond or bridge"
        fix = f"ip link set {name} nomaster"
        yield Finding("management", name, f"it is in {kind} {link.master}", alone, fix)
    if not (link.is_up and link.has_carrier):
        fix = f"ip link set {name} up, and look at its cable: ethtool {name}"
        yield Finding("management", name, "its link is down", "nobody reaches the host", fix)
    # Every interface has a link-local address, which reaches no further than its own cable.
    if all(ipaddress.ip_interface(address).is_link_local for address in link.addresses):
        fix = f"{RENDER}, or: ip address add ADDRESS dev {name}"
        yield Finding("management", name, "it has no address", "nobody reaches the host", fix)


def _reachable(plan: HostPlan, network: Network) -> Iterator[Finding]:
    """What manages the host answers only on the management interface."""
    why = "who is on that network can try to log in to the host or to a VM's console"
    for listener in network.listeners:
        service = _service(listener)
        if not service:
            continue
        for link in network.links.values():
            if link.name in ("lo", plan.management):
                continue
            address = _answering(listener, link)
            if address:
                yield Finding(
                    "reachable",
                    link.name,
                    f"{service} (port {listener.port}) answers at {address}",
                    why,
                    f"let it listen only on {plan.management}'s addresses, or remove the address"
                    f" from {link.name}",
                )


def _service(listener: Listener) -> str:
    if _QEMU.fullmatch(listener.program):
        return f"{listener.program}'s console"
    known = _GUARDED_PROGRAMS.get(listener.program, "")
    return known or _GUARDED_PORTS.get(listener.port, "")


def _answering(listener: Listener, link: Link) -> str:
    """The link's address at which the listener answers, or an empty string."""
    if listener.device not in ("", link.name):
        return ""
    wanted = ipaddress.ip_address(listener.address)
    for text in link.addresses:
        address = ipaddress.ip_interface(text).ip
        # An IPv6 socket also takes IPv4, unless the program forbids it (ipv6(7), IPV6_V6ONLY).
        if address == wanted or (
            wanted.is_unspecified and (wanted.version == 6 or address.version == 4)
        ):
            return str(address)
    return ""


def _settings(plan: HostPlan, network: Network) -> Iterator[Finding]:
    for what in ("iptables", "ip6tables", "arptables"):
        key = f"net/bridge/bridge-nf-call-{what}"
        if network.settings.get(key) == "1":
            yield Finding(
                "bridge-netfilter",
                key.replace("/", "."),
                "frames on bridges go through the host's IP firewall",
                "one connection table and one NAT serve all zones: what one zone's VM has opened"
                " lets another's frames through",
                f"sysctl -w {key}=0, and in /etc/sysctl.d",
            )
    for name in plan.carriers:
        if name in network.links:
            yield from _settings_of(network, name)


def _settings_of(network: Network, name: str) -> Iterator[Finding]:
    """On these interfaces the host has no address, and by default it still answers for all it has.

    Linux counts addresses as the host's, not the interface's (ip-sysctl.rst, rp_filter and
    arp_ignore; the higher of `all` and the interface's own counts).
    """
    filters = [network.setting("ipv4/rp_filter", each) for each in ("all", name)]
    if max(filters) != "1":
        yield Finding(
            "rp-filter",
            name,
            f"rp_filter is {max(filters) or 'not there'}, not strict",
            "VMs reach the host's management address through it, and forge where they come from",
            f"sysctl -w net/ipv4/conf/{name}/rp_filter=1, and in /etc/sysctl.d",
        )
    ignores = [network.setting("ipv4/arp_ignore", each) for each in ("all", name)]
    if max(ignores) in ("", "0"):
        yield Finding(
            "arp-ignore",
            name,
            "the host answers ARP there for its addresses elsewhere",
            "VMs learn the management address, and that this host has it",
            f"sysctl -w net/ipv4/conf/{name}/arp_ignore=1, and in /etc/sysctl.d",
        )
    for family in ("ipv4", "ipv6"):
        if network.setting(f"{family}/forwarding", name) == "1":
            yield Finding(
                "forwarding",
                name,
                f"the host routes {family.replace('ipv', 'IPv')} that comes in there",
                "it can lead out of the zone: to another one, or to the management network",
                f"sysctl -w net/{family}/conf/{name}/forwarding=0, and in /etc/sysctl.d",
            )
    if network.setting("ipv6/disable_ipv6", name) == "0":
        yield Finding(
            "host-ipv6",
            name,
            "the host uses IPv6 there",
            "it gives itself an address that VMs can reach, and believes their router"
            " advertisements",
            f"sysctl -w net/ipv6/conf/{name}/disable_ipv6=1, and in /etc/sysctl.d",
        )

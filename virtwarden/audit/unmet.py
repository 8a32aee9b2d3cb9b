# SPDX-License-Identifier: GPL-2.0-or-later
"""What the policy says that does not come true on this host, besides the guards' refusals."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from virtwarden.domain.model import Domain
from virtwarden.policy import Policy
from virtwarden.system.netfilter import BACKENDS, TapFilter

_OPEN_VSWITCH = Path("/sys/module/openvswitch")
_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
_GLOB = frozenset("*?[")
_SOME_NIC = ("vnet0", "52:54:00:00:00:00")


def unmet(policy: Policy, domains: Sequence[Domain]) -> Iterator[str]:
    """What the host cannot keep, and what names domains and devices that do not exist.

    `domains` are those that the policy manages. A sentence each.
    """
    yield from _of_host(policy)
    yield from _of_names(policy, domains)
    yield from _of_entries(policy, domains)


def _of_host(policy: Policy) -> Iterator[str]:
    """What the gate cannot keep out, and what no backend does for a future domain."""
    works = {name: backend.works() for name, backend in BACKENDS.items()}
    where = policy.where("network.backend")
    if not works["nftables"]:
        yield (
            "the gate uses ebtables: it shuts out only taps with libvirt's names; a NIC that"
            " is attached as `--target NAME` sends unfiltered (fix: apt install nftables)"
        )
    if _OPEN_VSWITCH.exists():
        yield (
            "Open vSwitch is installed: the gate does not protect its bridges, and a NIC that is"
            " attached to one is filtered only once virt-warden hears of it"
        )
    wanted = policy.host["network.backend"].value
    for name in BACKENDS if wanted == "auto" else (wanted,):
        if wanted != "auto" and not works[name]:
            yield f"{name} does not work on this host ({where})"
        if works[name] and (wanted != "auto" or not works["nftables"]):
            reason = BACKENDS[name].cannot(_some_filter(policy))
            if reason:
                yield f"{name} cannot {reason} ({where})"


def _some_filter(policy: Policy) -> TapFilter:
    def denied(key: str) -> bool:
        return bool(policy.host[f"network.{key}"].value == "deny")

    return TapFilter(
        *_SOME_NIC,
        deny_mac_spoofing=denied("mac_spoofing"),
        deny_arp_spoofing=denied("arp_spoofing"),
        deny_vlan_tags=denied("vlan_tags"),
        deny_dhcp_server=denied("dhcp_server"),
        deny_router_advertisements=denied("router_advertisements"),
        deny_link_protocols=denied("link_protocols"),
    )


def _of_names(policy: Policy, domains: Sequence[Domain]) -> Iterator[str]:
    """NICs that the policy names and no domain has: after such a typing mistake a NIC is free."""
    there = {nic.mac.lower() for domain in domains for nic in domain.nics}
    for entry in policy.entries:
        for key, setting in entry.settings.items():
            table, _, rest = key.partition(".")
            name = rest.partition(".")[0]
            if table == "nics" and _MAC.fullmatch(name) and name not in there:
                yield f"{setting.origin}: no managed domain has a NIC {name}"


def _of_entries(policy: Policy, domains: Sequence[Domain]) -> Iterator[str]:
    """Entries, and disks in them, that no domain has: such a typing mistake changes nothing."""
    for entry in policy.entries:
        meant = [domain for domain in domains if fnmatchcase(domain.name, entry.match)]
        if not meant and not _GLOB.intersection(entry.match):
            origin = next((setting.origin for setting in entry.settings.values()), None)
            where = f"{origin}: " if origin else ""
            yield f"{where}no managed domain is called {entry.match} ([[domain]] match)"
        there = {disk.target for domain in meant for disk in domain.disks}
        for key, setting in entry.settings.items():
            table, _, rest = key.partition(".")
            name = rest.partition(".")[0]
            if meant and table == "disks" and name not in there:
                yield f"{setting.origin}: no domain that {entry.match} matches has a disk {name}"

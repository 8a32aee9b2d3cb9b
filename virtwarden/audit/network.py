# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's own network: what `virt-warden network check` finds, as items."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from virtwarden.audit.item import Check, Item, Severity
from virtwarden.errors import CommandError, PolicyError
from virtwarden.hostnet import checks as hostnet
from virtwarden.hostnet import plan, seen
from virtwarden.hostnet.finding import RENDER, Finding
from virtwarden.hostnet.seen import Network
from virtwarden.policy import Policy

ZONES = Check(
    "host.network.zones",
    Severity.LOW,
    "The policy has zones",
    "The policy has no zones",
    "Without zones a domain may be on any network of the host, next to any other domain.",
    "write [zones.NAME] with bridges and vlan, and zone for its domains: man virt-warden.toml",
)
PLAN = Check(
    "host.network.plan",
    Severity.LOW,
    "The policy describes the host's network",
    "The policy does not describe the host's network",
    "Then nothing checks it. Without an active-backup bond of two cards, one broken cable cuts all"
    " zones off; without a separate management card, VMs can reach the host.",
    "write bond, slaves and management under [host], then see: virt-warden network check",
)


def _of(item: str, severity: Severity, good: str, bad: str, why: str) -> Check:
    return Check(f"host.network.{item}", severity, good, bad, why, f"see: {RENDER}")


_spare = partial(_of, why="When one interface, cable or switch fails, all zones lose the network.")
_apart = partial(_of, why="A zone's frames reach others, or do not reach their own.")
_hidden = partial(_of, why="VMs reach the host, and by it other networks.")

# These go by the name that a finding gives its item. Where one item of a group is bad, the rest of
# the group may not have been looked at.
GROUPS: tuple[tuple[Check, ...], ...] = (
    (
        _spare(
            "bond",
            Severity.HIGH,
            "The zones' bond is there, and in no foreign bridge",
            "The zones' bond is missing, or in a foreign bridge",
        ),
        _spare(
            "bond-mode",
            Severity.MEDIUM,
            "The bond's mode is active-backup",
            "The bond's mode is not active-backup",
        ),
        _spare(
            "bond-monitoring",
            Severity.MEDIUM,
            "The bond watches its links",
            "The bond does not watch its links",
        ),
        _spare(
            "bond-slaves",
            Severity.MEDIUM,
            "The bond has the planned slaves, two at least",
            "The bond's slaves are not as planned, or fewer than two",
        ),
        _spare("link", Severity.MEDIUM, "The bond's links are up", "A link of the bond is down"),
    ),
    (
        _apart(
            "zone-bridge",
            Severity.HIGH,
            "Each zone has its bridge to itself",
            "A zone's bridge is missing, down or shared",
        ),
        _apart(
            "zone-vlan",
            Severity.HIGH,
            "Each zone's VLAN reaches just its own bridge",
            "A zone's VLAN does not reach just its own bridge",
        ),
    ),
    (
        _hidden(
            "management",
            Severity.HIGH,
            "The host has a separate management card",
            "The host's management card is missing, down or shared",
        ),
    ),
    (
        _hidden(
            "host-address",
            Severity.HIGH,
            "The host has no address where zones' frames pass",
            "The host has an address where zones' frames pass",
        ),
    ),
    (
        _hidden(
            "host-ipv6",
            Severity.MEDIUM,
            "The host speaks no IPv6 where zones' frames pass",
            "The host speaks IPv6 where zones' frames pass",
        ),
    ),
    (
        _hidden(
            "reachable",
            Severity.HIGH,
            "The host can be managed only through its management interface",
            "The host can be managed through other interfaces",
        ),
    ),
    (
        _hidden(
            "rp-filter",
            Severity.MEDIUM,
            "Forged senders are dropped where zones' frames pass",
            "Forged senders are not dropped where zones' frames pass",
        ),
    ),
    (
        _hidden(
            "arp-ignore",
            Severity.MEDIUM,
            "The host tells no zone its other addresses",
            "The host tells a zone its other addresses",
        ),
    ),
    (
        _hidden(
            "forwarding",
            Severity.HIGH,
            "The host routes no packets that come from a zone",
            "The host routes packets that come from a zone",
        ),
    ),
    (
        _apart(
            "bridge-netfilter",
            Severity.MEDIUM,
            "Bridged frames do not pass the host's IP firewall",
            "Bridged frames pass the host's IP firewall",
        ),
    ),
)
# These findings need the zones' interfaces: a missing interface gives none.
_OF_INTERFACES = frozenset({"host-address", "host-ipv6", "rp-filter", "arp-ignore", "forwarding"})
CHECKS = {check.id.rpartition(".")[2]: check for group in GROUPS for check in group}


def checks(policy: Policy, look: Callable[[], Network] = seen.look) -> Iterator[Item]:
    """Compare the host's network with the policy; say if the policy has no zones or no plan."""
    zones = ", ".join(policy.zones)
    yield ZONES.judged(bool(zones), zones or "the policy has no zones")
    try:
        wanted = plan.read(policy)
        network = look()
    except PolicyError as error:
        yield PLAN.bad(error.what, fix=error.fix)
    except CommandError as error:
        yield PLAN.unknown(str(error), fix=error.fix)
    else:
        cards = ", ".join(wanted.slaves)
        yield PLAN.good(f"bond {wanted.bond} of {cards}; management by {wanted.management}")
        yield from _compared(hostnet.findings(wanted, network))


def _compared(findings: list[Finding]) -> Iterator[Item]:
    yield from map(_item, findings)
    found = {finding.item for finding in findings}
    unseen = _OF_INTERFACES if found & {"bond", "zone-bridge"} else frozenset()
    for group in GROUPS:
        if {CHECKS[item] for item in found | unseen}.isdisjoint(group):
            yield from (check.good("as the policy has it") for check in group)


def _item(finding: Finding) -> Item:
    check = replace(CHECKS[finding.item], why=f"{finding.why[0].upper()}{finding.why[1:]}.")
    return check.bad(finding.what, finding.subject, fix=finding.fix)

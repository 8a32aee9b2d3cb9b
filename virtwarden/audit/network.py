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
    "The policy keeps domains in zones",
    "Without zones a domain may be put on any network of the host, beside others of quite another"
    " purpose.",
    "write [zones.NAME] with bridges and vlan, and zone for its domains: man virt-warden.toml",
)
PLAN = Check(
    "host.network.plan",
    Severity.LOW,
    "The policy says what the host's network is to be",
    "Without an active-backup bond of two cards for the zones' VLANs one cable takes all of them"
    " down; without a card for the management alone VMs reach the host. Nobody compares what is"
    " there with what is not written.",
    "write bond, slaves and management under [host], then see: virt-warden network check",
)


def _of(item: str, severity: Severity, title: str, why: str) -> Check:
    return Check(f"host.network.{item}", severity, title, why, f"see: {RENDER}")


_spare = partial(_of, why="When one interface, cable or switch fails, all zones go dark.")
_apart = partial(_of, why="A zone's frames reach others, or do not reach their own.")
_hidden = partial(_of, why="VMs reach the host, and by it other networks.")

# By what a finding calls its item. Those of a group are not all looked at where one of it is bad.
GROUPS: tuple[tuple[Check, ...], ...] = (
    (
        _spare("bond", Severity.HIGH, "The zones' bond is there, and in no foreign bridge"),
        _spare("bond-mode", Severity.MEDIUM, "The bond's mode is active-backup"),
        _spare("bond-monitoring", Severity.MEDIUM, "The bond watches its links"),
        _spare("bond-slaves", Severity.MEDIUM, "The bond has the planned slaves, two at least"),
        _spare("link", Severity.MEDIUM, "The bond's links are up"),
    ),
    (
        _apart("zone-bridge", Severity.HIGH, "Each zone has its bridge to itself"),
        _apart("zone-vlan", Severity.HIGH, "Each zone's VLAN comes out on its bridge alone"),
    ),
    (_hidden("management", Severity.HIGH, "The host has a card of its own for its management"),),
    (_hidden("host-address", Severity.HIGH, "The host has no address where zones' frames pass"),),
    (_hidden("host-ipv6", Severity.MEDIUM, "The host speaks no IPv6 where zones' frames pass"),),
    (_hidden("reachable", Severity.HIGH, "The host is managed by its management interface alone"),),
    (_hidden("rp-filter", Severity.MEDIUM, "Forged senders are dropped where zones' frames pass"),),
    (_hidden("arp-ignore", Severity.MEDIUM, "The host tells no zone of its other addresses"),),
    (_hidden("forwarding", Severity.HIGH, "The host routes nothing that comes from a zone"),),
    (_apart("bridge-netfilter", Severity.MEDIUM, "Bridged frames pass no firewall of all zones"),),
)
# Asked of the zones' interfaces: of those that are not there, nothing is found.
_OF_INTERFACES = frozenset({"host-address", "host-ipv6", "rp-filter", "arp-ignore", "forwarding"})
CHECKS = {check.id.rpartition(".")[2]: check for group in GROUPS for check in group}


def checks(policy: Policy, look: Callable[[], Network] = seen.look) -> Iterator[Item]:
    """Compare the host's network with the policy's; a host without either is told of it."""
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

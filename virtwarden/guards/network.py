"""A VM speaks with no address but its own: spoofed frames die at its tap."""

from __future__ import annotations

from virtwarden.changes import Change, InstallFilter
from virtwarden.domain import Nic
from virtwarden.errors import Refusal
from virtwarden.guards.base import Case, Op, shown
from virtwarden.system.process import Process

NAME = "network"

_TAPPED = ("bridge", "network", "ethernet")
_BACKENDS = ("nftables", "ebtables")


def review(case: Case) -> list[Refusal]:
    """See Guard."""
    refusals = [refusal for nic in case.domain.nics for refusal in _review_nic(case, nic)]
    if case.op is Op.PREPARE and _filtered(case) and not _backend(case):
        refusals.append(_no_backend(case))
    return refusals


def _review_nic(case: Case, nic: Nic) -> list[Refusal]:
    if case.rules.untapped == "allow" or _has_tap(case, nic):
        return []
    return [
        case.refusal(
            f"of type {nic.kind} with no tap on a bridge: nothing can filter what it sends",
            where=f"NIC {nic.mac} ({case.rules.where('network.untapped')})",
            fix=f"put it on a bridge (virsh edit {shown(case.domain.name)}), or set untapped ="
            ' "allow" for this domain',
        )
    ]


def _has_tap(case: Case, nic: Nic) -> bool:
    """Before `start` the type is all there is to go by: the tap is not made yet."""
    if nic.kind not in _TAPPED:
        return False
    return case.op is Op.PREPARE or (bool(nic.tap) and case.facts.is_tap(nic.tap))


def _no_backend(case: Case) -> Refusal:
    wanted = case.rules.backend
    return (
        case.refusal(
            f"{wanted if wanted != 'auto' else 'neither nftables nor ebtables'} works on this host",
            where=case.rules.where("network.backend"),
            fix="apt install nftables ebtables; then see what fails: nft list ruleset",
        )
        if wanted == "auto"
        else case.refusal(
            f"{wanted} does not work on this host",
            where=case.rules.where("network.backend"),
            fix=f'apt install {wanted}, or set backend = "auto"',
        )
    )


def _backend(case: Case) -> str:
    """The backend that the policy names, or the first that works; empty where none does."""
    wanted = _BACKENDS if case.rules.backend == "auto" else (case.rules.backend,)
    return next((name for name in wanted if case.facts.backend_works(name)), "")


def _filtered(case: Case) -> bool:
    """Whether there is anything to filter at all."""
    rules = case.rules
    denied = "deny" in (rules.mac_spoofing, rules.arp_spoofing, rules.vlan_tags)
    return denied and any(_has_tap(case, nic) for nic in case.domain.nics)


def plan(case: Case) -> list[Change]:
    """See Guard."""
    return [*_filters(case)] if case.op is Op.START else []


def _filters(case: Case) -> list[InstallFilter]:
    """Raises Refusal where what worked at `prepare` works no more: asking twice takes time."""
    if not _filtered(case):
        return []
    backend = _backend(case)
    if not backend:
        raise _no_backend(case)
    return [
        InstallFilter(
            domain=case.domain.uuid,
            backend=backend,
            tap=nic.tap,
            mac=nic.mac.lower(),
            deny_mac_spoofing=case.rules.mac_spoofing == "deny",
            deny_arp_spoofing=case.rules.arp_spoofing == "deny",
            deny_vlan_tags=case.rules.vlan_tags == "deny",
        )
        for nic in case.domain.nics
        if _has_tap(case, nic)
    ]


def verify(case: Case, process: Process) -> list[str]:
    """See Guard."""
    try:
        filters = _filters(case)
    except Refusal as refusal:
        return [refusal.what]
    missing = [case.facts.missing_rules(f.backend, f.promise) for f in filters]
    return [sentence for sentence in missing if sentence]

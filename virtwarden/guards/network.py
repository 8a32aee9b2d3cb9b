# SPDX-License-Identifier: GPL-2.0-or-later
"""Guard `network`: a VM sends only with its own addresses; its tap drops forged frames."""

from __future__ import annotations

from virtwarden.changes import AdmitTaps, Change, InstallFilters
from virtwarden.domain.model import Nic
from virtwarden.errors import Refusal
from virtwarden.guards.base import Case, Op
from virtwarden.policy import Mode
from virtwarden.system.netfilter import TapFilter, rules_of
from virtwarden.system.process import Process
from virtwarden.words import shown

NAME = "network"

_TAPPED = ("bridge", "network", "ethernet")
_BACKENDS = ("nftables", "ebtables")
_STAND_IN = "its-tap"


def review(case: Case) -> list[Refusal]:
    refusals = [refusal for nic in case.domain.nics for refusal in _review_nic(case, nic)]
    refusals += [refusal for nic in _tapped(case) for refusal in _review_twin(case, nic)]
    refusals += [refusal for nic in case.domain.nics for refusal in _review_name(case, nic)]
    if case.op is Op.PREPARE:
        refusals += _review_backend(case)
    return refusals


def _review_nic(case: Case, nic: Nic) -> list[Refusal]:
    if case.rules.untapped == "allow" or _has_tap(case, nic):
        return []
    return [
        case.refusal(
            f"of type {nic.kind} with no tap on a bridge: nothing can filter what it sends",
            where=f"NIC {nic.mac} ({case.rules.where('network.untapped')})",
            fix=f"put it on a bridge ({case.edit}), or"
            f" {case.setting('untapped', 'allow', 'network')}",
        )
    ]


def _review_twin(case: Case, nic: Nic) -> list[Refusal]:
    """A bridge sends what is for a MAC address to the port that last sent from it."""
    bridge = (nic.tap and case.facts.bridge_of(nic.tap)) or nic.bridge
    if case.rules.mac_spoofing == "allow" or not bridge or not nic.mac:
        return []
    twin, tap = case.facts.twin_of(case.domain.name, bridge, nic.mac)
    if not twin or not _are_in_one_vlan(case, bridge, nic.tap, tap):
        return []
    return [
        case.refusal(
            f"domain {twin} runs with the same MAC address on bridge {bridge}: each would get"
            " the other's frames",
            where=f"NIC {nic.mac} ({case.rules.where('network.mac_spoofing')})",
            fix=f"{case.edit}, delete the line <mac address='{nic.mac}'/>"
            f" (libvirt makes up another), or stop {twin}",
        )
    ]


def _are_in_one_vlan(case: Case, bridge: str, *taps: str) -> bool:
    """On a VLAN-aware bridge only a running domain's taps tell: before, nobody has set them up."""
    if not case.facts.is_vlan_aware(bridge):
        return True
    if case.op is not Op.STARTED:
        return False
    return len({case.facts.port(tap).pvid for tap in taps}) == 1


def _review_name(case: Case, nic: Nic) -> list[Refusal]:
    """With `managed='no'` libvirt joins any tap that the XML names: another domain's too."""
    owner = case.facts.domain_at(nic.tap) if nic.tap else ""
    if owner in ("", case.domain.uuid):
        return []
    return [
        case.refusal(
            f"its tap {nic.tap} is that of another domain, {owner}",
            where=f"NIC {nic.mac}",
            fix=f"another <target dev=…>, or none: {case.edit}",
        )
    ]


def _has_tap(case: Case, nic: Nic) -> bool:
    """Whether a NIC has, or will have, a tap. Before `start` only its type tells."""
    if nic.kind not in _TAPPED:
        return False
    return case.op is Op.PREPARE or (bool(nic.tap) and case.facts.is_tap(nic.tap))


def _review_backend(case: Case) -> list[Refusal]:
    backend = _backend(case)
    if not backend:
        return [_no_backend(case)] if _needs_one(case) else []
    reasons = (case.facts.cannot_keep(backend, each) for each in _promises(case))
    return [
        case.refusal(
            f"{backend} cannot {reason}",
            where=case.rules.where("network.backend"),
            fix=f"{case.setting('backend', 'nftables', 'network')}; or allow what it cannot see"
            f" (virt-warden explain {shown(case.domain.name)})",
        )
        for reason in dict.fromkeys(filter(None, reasons))
    ]


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
            fix=f"apt install {wanted}, or {case.setting('backend', 'auto', 'network')}",
        )
    )


def _backend(case: Case) -> str:
    """The backend that the policy names, or the first that works; empty if none works."""
    wanted = _BACKENDS if case.rules.backend == "auto" else (case.rules.backend,)
    return next((name for name in wanted if case.facts.backend_works(name)), "")


def _needs_one(case: Case) -> bool:
    """Whether there is anything to filter at all."""
    return any(rules_of(each) for each in _promises(case))


def _promises(case: Case) -> list[TapFilter]:
    """The filter of each NIC; a tap that does not exist yet has a placeholder name."""
    return [
        TapFilter(
            tap=nic.tap or _STAND_IN,
            mac=nic.mac.lower(),
            deny_mac_spoofing=case.rules.mac_spoofing == "deny",
            deny_arp_spoofing=case.rules.arp_spoofing == "deny",
            deny_vlan_tags=case.rules.vlan_tags == "deny",
            deny_neighbour_spoofing=case.rules.neighbour_spoofing == "deny",
            deny_dhcp_server=case.rules.dhcp_server == "deny",
            deny_router_advertisements=case.rules.router_advertisements == "deny",
            deny_link_protocols=case.rules.link_protocols == "deny",
            broadcast_limit=case.rules.broadcast_limit,
            multicast_limit=case.rules.multicast_limit,
            addresses=case.rules.nic(nic.mac, place).addresses,
            macs=tuple(mac.lower() for mac in case.rules.nic(nic.mac, place).macs),
        )
        for place, nic in enumerate(case.domain.nics)
        if _has_tap(case, nic)
    ]


def _tapped(case: Case) -> list[Nic]:
    return [nic for nic in case.domain.nics if _has_tap(case, nic)]


def plan(case: Case) -> list[Change]:
    """It is asked whatever the domain's mode and `review` say.

    A tap that nobody lets in is shut out where the gate is up for other domains.
    """
    if case.rules.mode is Mode.DISABLED:
        found = [nic for nic in _tapped(case) if nic.tap and case.op is not Op.PREPARE]
        taps, queues = (nic.tap for nic in found), (nic.queue_count for nic in found)
        return [AdmitTaps(tuple(taps), tuple(queues))] if found else []
    return [*_filters(case)] if case.op is Op.START else []


def _filters(case: Case) -> list[InstallFilters]:
    """Raises Refusal where what worked at `prepare` works no more: asking twice takes time."""
    backend = _backend(case)
    promises = tuple(_promises(case))
    if not backend and _needs_one(case):
        raise _no_backend(case)
    if not backend:
        return []
    return [
        InstallFilters(
            domain=case.domain.uuid,
            backend=backend,
            gate=_gate(case, backend),
            foreign=case.rules.foreign_taps,
            filters=promises,
            # In permissive mode nobody is cut off: `verify` tells of who is at a tap.
            queues=tuple(nic.queue_count for nic in _tapped(case))
            if case.rules.mode is Mode.ENFORCING
            else (),
            kept=tuple(nic.tap for nic in _tapped(case) if nic.is_kept),
        )
    ]


def _gate(case: Case, backend: str) -> str:
    """The gate's backend: nftables if it works, because it knows a tap by more than its name."""
    return "nftables" if case.facts.backend_works("nftables") else backend


def verify(case: Case, process: Process) -> list[str]:
    """The policy may name another backend by now than the one that holds the taps."""
    promises = _promises(case)
    named = _backend(case)
    amiss = [_broken(case, each, case.facts.filtered_by(each.tap) or named) for each in promises]
    amiss += [
        f"{refusal.where}: {refusal.what}"
        for nic in _tapped(case)
        for refusal in _review_twin(case, nic)
    ]
    if promises or named:
        queues = {nic.tap: nic.queue_count for nic in _tapped(case)}
        amiss += case.facts.amiss_at_gate([*queues])
        amiss += case.facts.strangers_at(queues, process.uids[0])
    return [sentence for sentence in dict.fromkeys(amiss) if sentence]


def _broken(case: Case, promise: TapFilter, backend: str) -> str:
    if not backend:
        return _no_backend(case).what if rules_of(promise) else ""
    reason = case.facts.cannot_keep(backend, promise)
    return f"{backend} cannot {reason}" if reason else case.facts.missing_rules(backend, promise)

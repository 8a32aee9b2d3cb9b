# SPDX-License-Identifier: GPL-2.0-or-later
"""Guard `reach`: from the host's own network, QEMU reaches only what its XML needs.

What the guest sends by its tap is not the host's to send: guard `network` filters that.
"""

from __future__ import annotations

from virtwarden.changes import Change, LimitReach
from virtwarden.domain import peers
from virtwarden.errors import HostError, Refusal
from virtwarden.guards.base import Case, Op
from virtwarden.guards.displays import addresses_of
from virtwarden.policy.destinations import destination
from virtwarden.system.process import Process
from virtwarden.system.reach import Limit, Way
from virtwarden.words import shown

NAME = "reach"

_DNS_PORT = 53
_UNIX = "unix"
_EVERY_IPV4 = "0.0.0.0/0"
_FIX = "virt-warden network restore"


def review(case: Case) -> list[Refusal]:
    if case.op is not Op.PREPARE or not _is_limited(case):
        return []
    refusals = [] if case.rules.hosts else _of_learners(case)
    if not case.facts.reach_works():
        refusals.append(_no_backend(case))
    try:
        _to_peers(case)
    except Refusal as refusal:
        refusals.append(refusal)
    return refusals


def _is_limited(case: Case) -> bool:
    """A NIC of the type `user` sends what the guest sends as QEMU's own: nothing limits that."""
    return case.rules.host_network == "deny" and not peers.reaches_anything(case.domain)


def _of_learners(case: Case) -> list[Refusal]:
    return [
        case.refusal(
            f"its {protocol} disk also connects to hosts that its XML does not name",
            where=case.rules.where("reach.hosts"),
            fix="with their addresses: "
            + case.setting("hosts", [*case.rules.hosts, "192.0.2.0/24"], "reach"),
        )
        for protocol in peers.learners(case.domain)
    ]


def _no_backend(case: Case) -> Refusal:
    return case.refusal(
        "nftables does not work on this host, so nothing limits what QEMU sends from it",
        where=case.rules.where("reach.host_network"),
        fix="apt install nftables python3-nftables, then see what fails: nft list ruleset; or"
        f" {case.setting('host_network', 'allow', 'reach')}",
    )


def plan(case: Case) -> list[Change]:
    """Raises Refusal where a name that was known at `prepare` is known no more."""
    if case.op is not Op.START or not _is_limited(case) or not case.user:
        return []
    ways = (*_answers(case), *_answers_to_migration(case), *_to_peers(case), *_to_hosts(case))
    return [LimitReach(case.domain.uuid, case.user, tuple(dict.fromkeys(ways)))]


def _answers(case: Case) -> list[Way]:
    """The ports at which QEMU listens, by the XML and the policy, each at its own addresses.

    At another address of the host an escaped guest could listen at the same port.
    """
    displays = case.domain.displays if case.rules.display == "on" else ()
    ways = [
        Way(addresses=_own(case, addresses_of(case, display)), first=port, last=port)
        for display in displays
        for port in dict.fromkeys(display.ports)
    ]
    ways += [
        Way(addresses=_own(case, [host]), first=port, last=port)
        for host, port in peers.listeners(case.domain)
    ]
    return ways + [Way(first=port, last=port) for port in case.rules.tcp_bind]


def _own(case: Case, hosts: list[str]) -> tuple[str, ...]:
    """The addresses of these hosts, which are this one; none where it listens at all of them."""
    if not hosts or not {"", "::", "*"}.isdisjoint(hosts):
        return ()
    found: list[str] = []
    for host in hosts:
        if host == _UNIX:
            continue
        found += [_EVERY_IPV4] if host == "0.0.0.0" else _known(case, host)  # noqa: S104
    return tuple(dict.fromkeys(found))


def _known(case: Case, host: str) -> tuple[str, ...]:
    """Raises Refusal where a host has no address."""
    try:
        return case.facts.addresses_of(host).found
    except HostError as error:
        raise case.refusal(error.what, where=f"its listener at {host}", fix=error.fix) from None


def _answers_to_migration(case: Case) -> list[Way]:
    """QEMU takes the first that connects for the host that the VM comes from."""
    ports = case.facts.migration_ports(case.domain.uuid)
    return [Way(first=ports[0], last=ports[1], not_for_users=True)] if ports else []


def _to_peers(case: Case) -> list[Way]:
    """Raises Refusal where a host has no address."""
    ways = []
    for peer in peers.peers(case.domain):
        try:
            known = case.facts.addresses_of(peer.host)
        except HostError as error:
            fix = f"{error.fix}; or write its address: {case.edit}"
            raise case.refusal(error.what, where=peer.what, fix=fix) from None
        ways.append(Way(peer.protocol, peer.host, known.found, peer.port, peer.port))
        # QEMU asks them too.
        ways += [Way("any", each, (each,), _DNS_PORT, _DNS_PORT) for each in known.servers]
    return ways


def _to_hosts(case: Case) -> list[Way]:
    found = map(destination, case.rules.hosts)
    return [Way("any", to.network, (to.network,), to.first, to.last) for to in found]


def verify(case: Case, process: Process) -> list[str]:
    """It was limited by the policy of its start; a policy that says less since then is a breach."""
    if not _is_limited(case):
        return []
    limit = case.facts.limit_of(case.domain.uuid)
    if limit is None:
        return [_without_limit(shown(case.domain.name))]
    missing = case.facts.missing_limit(limit)
    return [*([f"{missing} ({_FIX})"] if missing else []), *_too_much(case, limit)]


def _without_limit(name: str) -> str:
    return (
        "nothing limits what QEMU sends from this host: it runs since before there was a limit"
        f" (virsh shutdown {name}; virsh start {name})"
    )


def _too_much(case: Case, limit: Limit) -> list[str]:
    """The addresses of a name may have changed: only what is written is compared."""
    peers_now = peers.peers(case.domain)
    needed = {(peer.protocol, peer.host, peer.port, peer.port) for peer in peers_now}
    needed |= {(way.protocol, way.host, way.first, way.last) for way in _to_hosts(case)}
    return [
        f"QEMU may still send to what neither XML nor policy names any more: {way}"
        for way in limit.ways
        if way.host
        and way.first != _DNS_PORT
        and (way.protocol, way.host, way.first, way.last) not in needed
    ]

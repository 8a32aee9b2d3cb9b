# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules in ebtables: a chain for each tap, to which the bridge's chain jumps.

Frames to the groups that no bridge forwards never pass PREROUTING. They go up to the host through
INPUT, and the bridge learns their source on the way (net/bridge/br_input.c). So both places have
the same rules. LLDP passes neither.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from virtwarden.errors import CommandError
from virtwarden.system.netfilter import rules as r
from virtwarden.system.netfilter.backend import Backend, Chains, difference, tally
from virtwarden.system.netfilter.promise import Network, TapFilter
from virtwarden.system.run import run
from virtwarden.system.scratchnet import in_scratch_network

EBTABLES = "/usr/sbin/ebtables"
EBTABLES_RESTORE = "/usr/sbin/ebtables-restore"

_LINK_GROUP = "-d 01:80:c2:00:00:00/ff:ff:ff:ff:ff:f0"
PLACES = {"nat": ("PREROUTING", ""), "filter": ("INPUT", f"{_LINK_GROUP} ")}
"""For each table the chain of the bridge's, and which of the frames there are ours to look at."""

_PROTOCOLS = {r.IPV4: "IPv4", r.ARP: "ARP", r.RARP: "RARP", r.IPV6: "IPv6", r.LLDP: "LLDP"}
_TRANSPORTS = {r.ICMP6: "ipv6-icmp", r.UDP: "udp"}
_ICMP6 = {
    r.ROUTER_SOLICITATION: "router-solicitation",
    r.ROUTER_ADVERTISEMENT: "router-advertisement",
    r.NEIGHBOUR_SOLICITATION: "neighbour-solicitation",
    r.NEIGHBOUR_ADVERTISEMENT: "neighbour-advertisement",
    r.REDIRECT: "redirect",
}
_TAG_WORDS = {0x8100: "802_1Q", 0x88A8: "S-TAG"}
_COUNT = re.compile(r", pcnt = (\d+) -- bcnt = \d+$")
# The unit in which ebtables counts time: a limit is a whole number of these for each frame.
_TICKS_A_SECOND = 10_000
_CANNOT: dict[type[Any], str] = {
    r.TaggedTwice: "look behind the VLAN tags that it would let pass",
    r.Neighbour: "read whose address neighbour discovery claims",
    r.LinkService: "see the LLDP that a guest sends to the host",
}
"""The kinds of condition that it has no words for, or that stand for what it never gets to see."""


def _arp(c: r.ArpFrom) -> list[str]:
    # A match on any IP and any MAC address makes ebtables check their sizes.
    address = _plain(c.address) if c.address and c.address.prefixlen else "0.0.0.0/0"
    mac = c.mac or "00:00:00:00:00:00/00:00:00:00:00:00"
    words = f"--arp-htype 1 --arp-ptype 0x800 --arp-ip-src {address}"
    words += f" --arp-ip-dst {_plain(c.target)}" if c.target and c.target.prefixlen else ""
    return [f"{words} --arp-mac-src {mac}"]


def _from(c: r.From) -> list[str]:
    return [f"--{_ip(c.network.version)}-src {_plain(c.network)}" if c.network.prefixlen else ""]


def _ports(c: r.Ports) -> list[str]:
    ip = _ip(c.version)
    source = f"--{ip}-sport {c.source} " if c.source else ""
    return [f"--{ip}-proto udp {source}--{ip}-dport {c.destination}"]


def _readable(c: r.Readable) -> list[str]:
    first = {
        r.ICMP6: "--ip6-proto ipv6-icmp --ip6-icmp-type 0:255/0:255",
        r.UDP: "--ip6-proto udp --ip6-dport 0:65535",
        # Where ebtables does not find the transport, no match on it is true, not even this.
        0: "--ip6-proto ! 255",
    }
    return [first[c.protocol]]


def _within(c: r.Within) -> list[str]:
    rate = _TICKS_A_SECOND // (_TICKS_A_SECOND // c.a_second)
    return [f"--limit {rate}/sec --limit-burst {c.a_second}"]


_WORDS: dict[type[Any], Callable[[Any], list[str]]] = {
    r.Source: lambda c: [f"-s {c.mac}"],
    r.Destination: lambda c: [f"-d {c.mac}/{c.mask}"],
    r.Protocol: lambda c: [f"-p {_PROTOCOLS[c.ethertype]}"],
    r.Tagged: lambda _: [f"-p {_TAG_WORDS.get(tag, f'{tag:#x}')}" for tag in r.TAGS],
    r.LinkService: lambda c: [f"-p Length --802_3-sap {c.sap:#x}"],
    r.Wrapped: lambda c: [f"-p Length --802_3-sap 0xaa --802_3-type {c.ethertype:#06x}"],
    r.ArpFrom: _arp,
    r.RarpFrom: lambda c: _arp(r.ArpFrom(c.mac, None)),
    r.From: _from,
    r.To: lambda c: [f"--{_ip(c.network.version)}-dst {_plain(c.network)}"],
    r.Ports: _ports,
    r.Igmp: lambda _: ["--ip-proto igmp"],
    r.IgmpKind: lambda c: [f"--ip-proto igmp --ip-igmp-type {r.IGMP_REPORTS[c.kind]}"],
    r.Icmp6: lambda c: [
        f"--ip6-proto ipv6-icmp --ip6-icmp-type {_ICMP6.get(c.kind, f'{c.kind}/0:255')}"
    ],
    r.Transport: lambda c: [f"--ip6-proto {_TRANSPORTS[c.protocol]}"],
    r.Readable: _readable,
    # It reads IPv4 whatever its length and version are. No match on it is true without a header.
    r.Readable4: lambda _: ["--ip-proto ! 255"],
    r.LaterFragment: lambda _: ["--ip6-proto ipv6-frag"],
    r.Broadcast: lambda _: ["--pkttype-type broadcast"],
    r.Multicast: lambda _: ["--pkttype-type multicast"],
    r.Within: _within,
}
"""Each kind of condition as every ebtables takes it, in as many ways as it needs."""


def _ip(version: int) -> str:
    return "ip" if version == 4 else "ip6"


def _plain(network: Network) -> str:
    whole = network.prefixlen == network.max_prefixlen
    return str(network.network_address) if whole else str(network)


def _lines(conditions: r.Conditions) -> list[str]:
    """The beginnings of rules that match these conditions, one for each way to meet them."""
    ways = product(*(_WORDS[type(condition)](condition) for condition in conditions))
    return [" ".join(filter(None, way)) for way in ways]


def _chain(promise: TapFilter, rule: str = "") -> str:
    # No tap has a / in its name, so no chain of another tap looks like one of this tap.
    return f"vmw-{promise.tap}/{rule}" if rule else f"vmw-{promise.tap}"


def chains(promise: TapFilter) -> Chains:
    """The chains of one tap with their rules; the tap's own comes first."""
    found: Chains = {_chain(promise): []}
    for chain, rule, _ in _said(promise):
        found.setdefault(chain, []).append(rule)
    return found


def _counted(promise: TapFilter) -> Chains:
    """The same chains, with each rule's promise in its place, or nothing where it drops nothing."""
    found: Chains = {_chain(promise): []}
    for chain, rule, word in _said(promise):
        found.setdefault(chain, []).append(word if rule.endswith("-j DROP") else "")
    return found


def _said(promise: TapFilter) -> Iterator[tuple[str, str, str]]:
    """Each rule with its chain before it and its promise behind it."""
    main = _chain(promise)
    for rule in map(_sayable, r.rules_of(promise)):
        chain = _chain(promise, rule.name)
        match rule:
            case r.Rule(unless=()):
                said = [(main, f"{line} -j DROP") for line in _lines(rule.frames)]
            case r.Rule(frames=(), unless=((r.Source(mac),),)):
                said = [(main, f"-s ! {mac} -j DROP")]
            case _:
                said = [
                    *((main, f"{line} -j {chain}".strip()) for line in _lines(rule.frames)),
                    *((chain, line) for line in _exceptions(rule)),
                    (chain, "-j DROP"),
                ]
        yield from ((*each, rule.promise) for each in said)


def _sayable(rule: r.Rule) -> r.Rule:
    """A rule without the exceptions that it can only make blindly: it drops these frames too."""
    unsayable = (r.PriorityTagged(),)
    return replace(rule, unless=tuple(each for each in rule.unless if each != unsayable))


def _exceptions(rule: r.Rule) -> list[str]:
    """The rules that return. ebtables needs the protocol again in a rule that looks into it."""
    protocol = tuple(c for c in rule.frames if isinstance(c, r.Protocol))
    return [f"{line} -j RETURN" for each in rule.unless for line in _lines((*protocol, *each))]


class Ebtables(Backend):
    """One chain for each tap in each table, and one more for each rule with exceptions."""

    name = "ebtables"

    def works(self) -> bool:
        if not Path(EBTABLES_RESTORE).exists():
            return False
        try:
            run(EBTABLES, "-t", "nat", "-L", "PREROUTING")
        except CommandError:
            return False
        return True

    def cannot(self, promise: TapFilter) -> str:
        used = {
            type(condition)
            for rule in r.rules_of(promise)
            for conditions in (rule.frames, *rule.unless)
            for condition in conditions
        }
        return " or ".join(words for kind, words in _CANNOT.items() if kind in used)

    def render(self, promises: Iterable[TapFilter]) -> str:
        """The transaction that lays the rules of these taps, which have none yet."""
        wanted = [(promise, chains(promise)) for promise in promises]
        lines: list[str] = []
        for table, (hook, frames) in PLACES.items():
            lines.append(f"*{table}")
            lines += [f":{chain} RETURN" for _, found in wanted for chain in found]
            for promise, found in wanted:
                lines += [f"-A {chain} {rule}" for chain, rules in found.items() for rule in rules]
                lines.append(f"-A {hook} {_jump(frames, promise)}")
            lines.append("COMMIT")
        return "\n".join([*lines, ""])

    def install(self, promises: Sequence[TapFilter], also: str = "") -> None:
        self.remove([p.tap for p in promises if _has_rules(p.tap)])
        run(EBTABLES_RESTORE, "--noflush", stdin=self.render(promises) + also)

    renew = install

    def remove(self, taps: Sequence[str], also: str = "") -> None:
        lines = [line for table in PLACES for tap in taps for line in _removal(table, tap)]
        if lines or also:
            run(EBTABLES_RESTORE, "--noflush", stdin="\n".join([*lines, also]))

    def dropped(self, promises: Sequence[TapFilter]) -> dict[str, Counter[str]]:
        there = [listed(table, counts=True) for table in PLACES] if promises else []
        return {
            each.tap: sum((tally(_counted(each), table, _COUNT) for table in there), Counter())
            for each in promises
        }

    def missing(self, promise: TapFilter) -> str:
        there = _listed_of(promise)
        wanted = _laid(promise)
        if there == wanted:
            return ""
        wanted = in_scratch_network(lambda: self._as_listed(promise))
        for table, (hook, _) in PLACES.items():
            place = f"ebtables table {table}"
            if there[table].get(hook) != wanted[table][hook]:
                return f"{place} does not send what comes from {promise.tap} to its chain"
            found = difference(wanted[table], there[table], place)
            if found:
                return found
        return ""

    def first_missing(self, promises: Sequence[TapFilter]) -> str:
        there = _all_listed(promises)
        if there == {place: rules for each in promises for place, rules in _placed(each).items()}:
            return ""
        wanted = in_scratch_network(lambda: self._all_as_listed(promises))
        found = (
            f"ebtables table {table} has not the rules it had in {chain}"
            for (table, chain, _), rules in wanted.items()
            if there[table, chain, _] != rules
        )
        return next(found, "")

    def _all_as_listed(self, promises: Sequence[TapFilter]) -> dict[_Place, list[str]]:
        run(EBTABLES_RESTORE, "--noflush", stdin=self.render(promises))
        return _all_listed(promises)

    def _as_listed(self, promise: TapFilter) -> dict[str, Chains]:
        """The rules as this host's ebtables lists them in a network namespace of their own."""
        run(EBTABLES_RESTORE, "--noflush", stdin=self.render([promise]))
        return _listed_of(promise)


_Place = tuple[str, str, str]
"""A table, a chain in it, and the tap whose rules there are meant."""


def _placed(promise: TapFilter) -> dict[_Place, list[str]]:
    """What we lay in each table and chain, in our words."""
    return {
        (table, chain, promise.tap): rules
        for table, laid in _laid(promise).items()
        for chain, rules in laid.items()
    }


def _all_listed(promises: Sequence[TapFilter]) -> dict[_Place, list[str]]:
    """The same of several taps, as ebtables lists it; it lists each table once."""
    tables = {table: listed(table) for table in PLACES}
    hooks = [hook for hook, _ in PLACES.values()]
    return {
        (table, chain, tap): _jumps(rules, tap) if chain in hooks else rules
        for promise in promises
        for table, chain, tap in _placed(promise)
        for rules in (tables[table].get(chain, []),)
    }


def _laid(promise: TapFilter) -> dict[str, Chains]:
    """What we lay in each table, in our words: the bridge's jump, then the tap's chains."""
    return {
        table: {hook: [_jump(frames, promise)], **chains(promise)}
        for table, (hook, frames) in PLACES.items()
    }


def _listed_of(promise: TapFilter) -> dict[str, Chains]:
    """The same, as ebtables lists it."""
    found: dict[str, Chains] = {}
    for table, (hook, _) in PLACES.items():
        there = found[table] = {hook: _jumps(listed(table, hook).get(hook, []), promise.tap)}
        for chain in chains(promise):
            there |= listed(table, chain)
    return found


def _jump(frames: str, promise: TapFilter) -> str:
    return f"{frames}-i {promise.tap} -j {_chain(promise)}"


def _jumps(rules: list[str], tap: str) -> list[str]:
    """The rules of a chain that jump to the tap's chain, in whatever words they are listed."""
    return [rule for rule in rules if rule.endswith(f" -j vmw-{tap}")]


def _has_rules(tap: str) -> bool:
    return any(listed(table, f"vmw-{tap}") for table in PLACES)


def _removal(table: str, tap: str) -> list[str]:
    """The lines that remove a tap's chains from a table; empty where there are none."""
    hook, _ = PLACES[table]
    main = f"vmw-{tap}"
    there = listed(table)
    ours = [chain for chain in there if chain == main or chain.startswith(f"{main}/")]
    if not ours:
        return []
    return [
        f"*{table}",
        # Somebody may have flushed the bridge's own chains, but not ours.
        *(f"-D {hook} {jump}" for jump in _jumps(there.get(hook, []), tap)),
        *(f"-F {chain}" for chain in ours),
        *(f"-X {chain}" for chain in ours),
        "COMMIT",
    ]


def listed(table: str, chain: str = "", *, counts: bool = False) -> Chains:
    """The chains of a table, or only one, with their rules; empty where there is none.

    With `counts`, each rule ends with how many frames it met.
    """
    try:
        listed = run(EBTABLES, "-t", table, "-L", *filter(None, [chain]), *["--Lc"] * counts)
    except CommandError:
        return {}
    found: Chains = {}
    for line in (line.strip() for line in listed.splitlines()):
        if line.startswith("Bridge chain: "):
            rules = found[line.removeprefix("Bridge chain: ").split(",")[0]] = []
        elif line.startswith(("-", "! -")):
            rules.append(line)
    return found

# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules in nft's words.

A netdev hook comes before the bridge and before everything else that reads frames (nft(8), "NETDEV
ADDRESS FAMILY"). By then the kernel has removed the first VLAN tag: `meta protocol` is the protocol
behind it, but `ether type` is still the tag's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

from virtwarden.system.netfilter import rules as r
from virtwarden.system.netfilter.backend import Chains
from virtwarden.system.netfilter.promise import Network, TapFilter

_PROTOCOLS = {r.IPV4: "ip", r.ARP: "arp", r.IPV6: "ip6"}
_TRANSPORTS = {r.ICMP6: "ipv6-icmp", r.UDP: "udp"}
_ICMP6 = {
    r.MULTICAST_LISTENER_QUERY: "mld-listener-query",
    131: "mld-listener-report",
    132: "mld-listener-done",
    r.ROUTER_SOLICITATION: "nd-router-solicit",
    r.ROUTER_ADVERTISEMENT: "nd-router-advert",
    r.NEIGHBOUR_SOLICITATION: "nd-neighbor-solicit",
    r.NEIGHBOUR_ADVERTISEMENT: "nd-neighbor-advert",
    r.REDIRECT: "nd-redirect",
    143: "mld2-listener-report",
}
_TAGS = ("8021q", "8021ad", "0x9100", "0x9200")
# IEEE 802.2, a frame without an ethertype: ETH_P_802_2 in linux/if_ether.h
_LLC = "0x0004"
# SNAP's service access point. Between it and the ethertype stands a vendor that few receivers look
# at: none (RFC 1042), or 00-00-F8 (IEEE 802.1H).
_SNAP = 0xAA
# Only a frame that is dropped pays for its counter.
_DROP = "counter drop"


def _arp(c: r.ArpFrom) -> str:
    words = ["arp htype 1 arp ptype ip arp hlen 6 arp plen 4"]
    words += [f"arp saddr ether {c.mac}"] if c.mac else []
    words += [f"arp saddr ip {_plain(c.address)}"] if c.address and c.address.prefixlen else []
    words += [f"arp daddr ip {_plain(c.target)}"] if c.target and c.target.prefixlen else []
    return " ".join(words)


def _rarp(c: r.RarpFrom) -> str:
    return f"@nh,0,48 0x108000604 @nh,64,48 {_number(c.mac):#x}"


def _from(c: r.From) -> str:
    family = _family(c.network)
    return (
        f"{family} saddr {_plain(c.network)}" if c.network.prefixlen else f"meta protocol {family}"
    )


def _ports(c: r.Ports) -> str:
    source = f"udp sport {c.source} " if c.source else ""
    return f"{source}udp dport {c.destination}"


def _neighbour(c: r.Neighbour) -> str:
    words = [f"ip6 length {c.fixed + (8 if c.option else 0)} ip6 nexthdr ipv6-icmp"]
    if c.target and c.target.prefixlen:
        # RFC 4861, 4.3 and 4.4: the target address follows 8 bytes of ICMPv6.
        words.append(_masked("@th,64,128", c.target))
    if c.option:
        value = int.from_bytes(c.option)
        words.append(f"@th,{c.fixed * 8},{len(c.option) * 8} {value:#x}")
    return " ".join(words)


def _readable(c: r.Readable) -> str:
    first = {r.ICMP6: "icmpv6 type 0-255", r.UDP: "udp dport 0-65535", 0: "meta l4proto 0-255"}
    return first[c.protocol]


_WORDS: dict[type[Any], Callable[[Any], str]] = {
    r.Source: lambda c: f"ether saddr {c.mac}",
    r.Destination: lambda c: f"ether daddr & {c.mask} == {c.mac}",
    r.Protocol: lambda c: f"meta protocol {_PROTOCOLS.get(c.ethertype, f'{c.ethertype:#06x}')}",
    r.LinkService: lambda c: f"meta protocol {_LLC} @nh,0,8 {c.sap:#x}",
    r.Wrapped: lambda c: f"meta protocol {_LLC} @nh,0,8 {_SNAP:#x} @nh,48,16 {c.ethertype:#x}",
    r.ArpFrom: _arp,
    r.RarpFrom: _rarp,
    r.From: _from,
    r.To: lambda c: f"{_family(c.network)} daddr {_plain(c.network)}",
    r.Ports: _ports,
    r.Igmp: lambda _: "ip protocol igmp",
    r.IgmpKind: lambda c: f"igmp type {r.IGMP_REPORTS[c.kind]}",
    r.Icmp6: lambda c: f"icmpv6 type {_ICMP6[c.kind]}",
    r.Neighbour: _neighbour,
    r.Transport: lambda c: f"meta l4proto {_TRANSPORTS[c.protocol]}",
    r.Readable: _readable,
    r.Readable4: lambda _: "meta l4proto 0-255",
    r.LaterFragment: lambda _: "frag frag-off != 0",
    r.Broadcast: lambda _: "meta pkttype broadcast",
    r.Multicast: lambda _: "meta pkttype multicast",
    r.Within: lambda c: f"limit rate {c.a_second}/second burst {c.a_second} packets",
}
"""Each kind of condition as every nft takes it, and 1.0.6 lists it."""


def _number(mac: str) -> int:
    return int(mac.replace(":", ""), 16)


def _family(network: Network) -> str:
    return "ip" if network.version == 4 else "ip6"


def _plain(network: Network) -> str:
    whole = network.prefixlen == network.max_prefixlen
    return str(network.network_address) if whole else str(network)


def _masked(place: str, network: Network) -> str:
    address, mask = int(network.network_address), int(network.netmask)
    if network.prefixlen == network.max_prefixlen:
        return f"{place} {address:#x}"
    return f"{place} & {mask:#x} == {address:#x}"


def _ways(condition: r.Condition) -> list[str]:
    match condition:
        case r.Tagged():
            return [f"ether type {tag}" for tag in _TAGS]
        case r.TaggedTwice():
            return [f"meta protocol {tag}" for tag in _TAGS]
        case r.PriorityTagged():
            return [" ".join(["vlan id 0", *(f"meta protocol != {tag}" for tag in _TAGS)])]
    return [_WORDS[type(condition)](condition)]


def _lines(conditions: r.Conditions) -> list[str]:
    """The beginnings of rules that match these conditions, one for each way to meet them."""
    match conditions:
        case (r.Protocol(r.IPV6), r.Icmp6() | r.Transport(r.ICMP6) | r.From(), *_) | (
            r.Protocol(r.IPV4),
            r.Igmp(),
        ):
            # In its listing nft leaves out a protocol that the next condition implies.
            conditions = conditions[1:]
    return [" ".join(way) for way in product(*map(_ways, conditions))]


def chain_of(tap: str, rule: str = "") -> str:
    """The name of a tap's base chain, or of its chain for the exceptions of a rule."""
    # No tap has a / in its name, so no chain of another tap looks like one of this tap.
    return f"vmw-{tap}/{rule}" if rule else f"vmw-{tap}"


def chains(promise: TapFilter) -> Chains:
    """The chains of one tap with their rules; the base chain comes first."""
    found: Chains = {chain_of(promise.tap): []}
    for chain, rule, _ in _laid(promise):
        found.setdefault(chain, []).append(rule)
    return found


def counted(promise: TapFilter) -> Chains:
    """The same chains, with each rule's promise in its place, or nothing where it drops nothing."""
    found: Chains = {chain_of(promise.tap): []}
    for chain, rule, word in _laid(promise):
        found.setdefault(chain, []).append(word if rule.endswith(_DROP) else "")
    return found


def _laid(promise: TapFilter) -> Iterator[tuple[str, str, str]]:
    """Each rule with its chain before it and its promise behind it."""
    base = chain_of(promise.tap)
    for rule in r.rules_of(promise):
        chain = chain_of(promise.tap, rule.name)
        match rule:
            case r.Rule(unless=()):
                laid = [(base, f"{line} {_DROP}") for line in _lines(rule.frames)]
            case r.Rule(frames=(), unless=((r.Source(mac),),)):
                laid = [(base, f"ether saddr != {mac} {_DROP}")]
            case _:
                exceptions = [line for each in rule.unless for line in _lines(each)]
                laid = [
                    *((base, f"{line} jump {chain}".strip()) for line in _lines(rule.frames)),
                    *((chain, f"{line} return") for line in exceptions),
                    (chain, _DROP),
                ]
        yield from ((*each, rule.promise) for each in laid)

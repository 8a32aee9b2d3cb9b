"""The rules as nft has them: a netdev ingress chain on the tap, at a cost that is each tap's own.

It comes before the bridge, and before whatever else looks at frames (nft(8), "NETDEV ADDRESS
FAMILY"). The kernel has taken the first VLAN tag off by then: `meta protocol` is what is behind
it, while `ether type` still tells of the tag.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from virtwarden.errors import CommandError
from virtwarden.system.netfilter import rules as r
from virtwarden.system.netfilter.backend import difference
from virtwarden.system.netfilter.promise import Network, TapFilter
from virtwarden.system.run import run

NFT = "/usr/sbin/nft"

_BASE = "ingress"
_PROTOCOLS = {r.IPV4: "ip", r.ARP: "arp", r.IPV6: "ip6"}
_TRANSPORTS = {r.ICMP6: "ipv6-icmp", r.UDP: "udp"}
_ICMP6 = {
    131: "mld-listener-report",
    132: "mld-listener-done",
    r.ROUTER_SOLICITATION: "nd-router-solicit",
    r.ROUTER_ADVERTISEMENT: "nd-router-advert",
    r.NEIGHBOUR_SOLICITATION: "nd-neighbor-solicit",
    r.NEIGHBOUR_ADVERTISEMENT: "nd-neighbor-advert",
    r.REDIRECT: "nd-redirect",
    143: "mld2-listener-report",
}
_TAG_WORDS = "{ 8021q, 8021ad, 0x9100, 0x9200 }"
# IEEE 802.2 as linux/if_ether.h numbers it where no ethertype stands: ETH_P_802_2
_LLC = "0x0004"
# What RFC 1042 puts before the ethertype: the SNAP's service access points, its control, no vendor
_SNAP = 0xAAAA03000000


def _arp(c: r.ArpFrom) -> str:
    words = ["arp htype 1 arp ptype ip arp hlen 6 arp plen 4"]
    words += [f"arp saddr ether {c.mac}"] if c.mac else []
    words += [f"arp saddr ip {_plain(c.address)}"] if c.address and c.address.prefixlen else []
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
    r.Tagged: lambda _: f"ether type {_TAG_WORDS}",
    r.TaggedTwice: lambda _: f"meta protocol {_TAG_WORDS}",
    r.LinkService: lambda c: f"meta protocol {_LLC} @nh,0,8 {c.sap:#x}",
    r.Wrapped: lambda c: f"meta protocol {_LLC} @nh,0,64 {_SNAP << 16 | c.ethertype:#x}",
    r.ArpFrom: _arp,
    r.RarpFrom: _rarp,
    r.From: _from,
    r.To: lambda c: f"{_family(c.network)} daddr {_plain(c.network)}",
    r.Ports: _ports,
    r.Icmp6: lambda c: f"icmpv6 type {_ICMP6[c.kind]}",
    r.Neighbour: _neighbour,
    r.Transport: lambda c: f"meta l4proto {_TRANSPORTS[c.protocol]}",
    r.Readable: _readable,
    r.LaterFragment: lambda _: "frag frag-off != 0",
    r.Broadcast: lambda _: "meta pkttype broadcast",
    r.Multicast: lambda _: "meta pkttype multicast",
    r.Within: lambda c: f"limit rate {c.a_second}/second burst {c.a_second} packets",
}
"""Each kind of condition as nft both takes and lists it."""


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


def _words(conditions: r.Conditions) -> str:
    match conditions:
        case (r.Protocol(r.IPV6), (r.Icmp6() | r.Transport(r.ICMP6)) as inside):
            # nft leaves out, when it lists, what goes without saying.
            conditions = (inside,)
    return " ".join(_WORDS[type(condition)](condition) for condition in conditions)


def chains(promise: TapFilter) -> dict[str, list[str]]:
    """The chains of one tap with their rules, as nft lists them; the base chain comes first."""
    found: dict[str, list[str]] = {_BASE: []}
    for rule in r.rules_of(promise):
        match rule:
            case r.Rule(unless=()):
                found[_BASE].append(f"{_words(rule.frames)} drop")
            case r.Rule(frames=(), unless=((r.Source(mac),),)):
                found[_BASE].append(f"ether saddr != {mac} drop")
            case _:
                chain = f"unless-{rule.name}"
                found[_BASE].append(f"{_words(rule.frames)} jump {chain}")
                found[chain] = [f"{_words(each)} return" for each in rule.unless] + ["drop"]
    return found


class Nftables:
    """A netdev table for each tap, with the tap's name."""

    name = "nftables"

    def works(self) -> bool:
        """See Backend."""
        if not Path(NFT).exists():
            return False
        try:
            run(NFT, "--check", "-f", "-", stdin=_table("lo", {_BASE: []}))
        except CommandError:
            return False
        return True

    def cannot(self, promise: TapFilter) -> str:
        """See Backend."""
        return ""

    def render(self, promises: Iterable[TapFilter]) -> str:
        """See Backend."""
        return "".join(
            _deleted(_name(promise.tap)) + _table(promise.tap, chains(promise))
            for promise in promises
        )

    def install(self, promises: Sequence[TapFilter], also: str = "") -> None:
        """See Backend.

        A tap that was just made has no rules: `create` is then done at once. It fails where there
        are any, and only then is deleted, for which the kernel waits until no frame on its way is
        looked at by the old ones, 10 ms and more.
        """
        created = "".join(
            f"create table {_name(promise.tap)}\n{_table(promise.tap, chains(promise))}"
            for promise in promises
        )
        try:
            run(NFT, "-f", "-", stdin=created + also)
        except CommandError:
            run(NFT, "-f", "-", stdin=self.render(promises) + also)

    def remove(self, taps: Sequence[str], also: str = "") -> None:
        """See Backend."""
        text = "".join(_deleted(_name(tap)) for tap in taps) + also
        if text:
            run(NFT, "-f", "-", stdin=text)

    def missing(self, promise: TapFilter) -> str:
        """See Backend."""
        table = _name(promise.tap)
        try:
            listed = run(NFT, "list", "table", *table.split())
        except CommandError:
            return f"nft knows no table {table}"
        device = re.search(r"type filter hook ingress device \"(.*)\" priority", listed)
        if not device or device[1] != promise.tap:
            return f"no ingress chain of table {table} is bound to {promise.tap}"
        return difference(chains(promise), listed_chains(listed), f"nft table {table}")


def _name(tap: str) -> str:
    return f"netdev vmw-{tap}"


def _deleted(table: str) -> str:
    # Deleting needs that it is there: added first, one text does for both cases.
    return f"add table {table}\ndelete table {table}\n"


def _table(tap: str, chains: dict[str, list[str]]) -> str:
    hook = f'type filter hook ingress device "{tap}" priority -500; policy accept;'
    lines = [f"table {_name(tap)} {{"]
    for chain, rules in chains.items():
        lines += [f"  chain {chain} {{", *([f"    {hook}"] if chain == _BASE else [])]
        lines += [*(f"    {rule}" for rule in rules), "  }"]
    return "\n".join([*lines, "}", ""])


def listed_chains(listed: str) -> dict[str, list[str]]:
    """The chains of a table that nft listed, with their rules."""
    found: dict[str, list[str]] = {}
    for line in (line.strip() for line in listed.splitlines()):
        if line.startswith("chain "):
            rules = found[line.split()[1]] = []
        elif found and line not in ("", "}") and not line.startswith("type filter hook"):
            rules.append(line)
    return found

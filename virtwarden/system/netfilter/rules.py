# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules of one tap, the same for all backends: which frames to drop, and the exceptions.

A backend says each kind of condition in its own words, or says that it cannot.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from virtwarden.system.netfilter.promise import Network, TapFilter

# linux/if_ether.h
IPV4, ARP, RARP, IPV6, LLDP = 0x0800, 0x0806, 0x8035, 0x86DD, 0x88CC
# IEEE 802.1Q, IEEE 802.1ad, and two that switches used for the latter before it was a standard.
TAGS = (0x8100, 0x88A8, 0x9100, 0x9200)
# IANA, Internet Protocol Version 6 (IPv6) Parameters and Protocol Numbers
IGMP, UDP, ICMP6 = 2, 17, 58
# RFC 9776, 4: what listeners say, with the names that nft and ebtables both have for it
IGMP_REPORTS = {
    0x12: "membership-report-v1",
    0x16: "membership-report-v2",
    0x22: "membership-report-v3",
    0x17: "leave-group",
}
MULTICAST_LISTENER_QUERY = 130
ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT, REDIRECT = 133, 134, 137
NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT = 135, 136
MULTICAST_LISTENER = (131, 132, 143)
# RFC 2131, RFC 8415
_DHCP_SERVER, _DHCP_CLIENT, _DHCP6_CLIENT = 67, 68, 546
# RFC 4861, 4.6.1: the options that carry a MAC address
_SOURCE_LINK_LAYER, _TARGET_LINK_LAYER = 1, 2
# RFC 7527: the option that tells a node's own solicitation from another node's
_NONCE = 14
_NO_IPV4 = ipaddress.IPv4Network("0.0.0.0/32")
_ALL_IPV4 = ipaddress.IPv4Network("255.255.255.255/32")
_NO_IPV6 = ipaddress.IPv6Network("::/128")
# IEEE 802.1D, 7.12.6 and table 10-1; Cisco's CDP, VTP and PVST+
_LINK_GROUPS = (
    ("01:80:c2:00:00:00", "ff:ff:ff:ff:ff:f0"),
    ("01:80:c2:00:00:20", "ff:ff:ff:ff:ff:f0"),
    ("01:00:0c:cc:cc:cc", "ff:ff:ff:ff:ff:fe"),
)
_SPANNING_TREE_SAP = 0x42


@dataclass(frozen=True)
class Source:
    """From this MAC address."""

    mac: str


@dataclass(frozen=True)
class Destination:
    """To a MAC address that is equal to this one in the bits of the mask."""

    mac: str
    mask: str


@dataclass(frozen=True)
class Protocol:
    """With this ethertype; where a VLAN tag may pass, with this ethertype behind the first tag."""

    ethertype: int


@dataclass(frozen=True)
class Tagged:
    """With a VLAN tag."""


@dataclass(frozen=True)
class PriorityTagged:
    """With one tag of IEEE 802.1Q, which has a priority and no VLAN.

    Bridges and hosts remove it and deliver what was behind it. A backend that has no words for what
    is behind a tag drops these frames with all other tagged ones.
    """


@dataclass(frozen=True)
class TaggedTwice:
    """With a second VLAN tag behind the first."""


@dataclass(frozen=True)
class LinkService:
    """An IEEE 802.2 frame to this service access point."""

    sap: int


@dataclass(frozen=True)
class Wrapped:
    """An IEEE 802.2 frame with the content of a frame of this ethertype, whatever its vendor is.

    RFC 1042 has no vendor, IEEE 802.1H has 00-00-F8.
    """

    ethertype: int


@dataclass(frozen=True)
class ArpFrom:
    """ARP for IPv4 on Ethernet from this sender, about an address of `target`. None means any."""

    mac: str | None
    address: Network | None
    target: Network | None = None


@dataclass(frozen=True)
class RarpFrom:
    """RARP for IPv4 on Ethernet from this sender."""

    mac: str


@dataclass(frozen=True)
class From:
    """IP from this network."""

    network: Network


@dataclass(frozen=True)
class To:
    """IP to this network."""

    network: Network


@dataclass(frozen=True)
class Ports:
    """UDP over this version of IP between these ports; a source of 0 means any."""

    version: int
    source: int
    destination: int


@dataclass(frozen=True)
class Igmp:
    """IGMP, the reports and queries of IPv4's multicast groups."""


@dataclass(frozen=True)
class IgmpKind:
    """A whole IGMP message of this type, or its first fragment."""

    kind: int


@dataclass(frozen=True)
class Icmp6:
    """ICMPv6 of this type."""

    kind: int


@dataclass(frozen=True)
class Neighbour:
    """Neighbour discovery with exactly one option, which begins with `option`, or with none.

    `fixed` is the number of ICMPv6 bytes before the options. `target` is the network that the
    target address must be in.
    """

    fixed: int
    target: Network | None = None
    option: bytes = b""


@dataclass(frozen=True)
class Transport:
    """IPv6 that carries this protocol, behind any other headers."""

    protocol: int


@dataclass(frozen=True)
class Readable:
    """IPv6 that has all its headers up to the transport's first bytes.

    For a protocol of 0 the headers up to the transport protocol's number are enough.
    """

    protocol: int


@dataclass(frozen=True)
class Readable4:
    """IPv4 of which a filter can say what it carries."""


@dataclass(frozen=True)
class LaterFragment:
    """A fragment of IPv6 other than the first. It is useless where the first was dropped."""


@dataclass(frozen=True)
class Broadcast:
    """To the broadcast address."""


@dataclass(frozen=True)
class Multicast:
    """To a multicast group."""


@dataclass(frozen=True)
class Within:
    """At most this many frames a second, and as many in one burst."""

    a_second: int


_PROMISES = {
    "mac": "mac",
    "tag": "vlan",
    "tags": "vlan",
    "wrapped": "evasion",
    "link": "link",
    "arp": "arp",
    "rarp": "arp",
    "ip4": "address",
    "ip6": "address",
    "nd": "neighbour",
    "dhcp": "dhcp",
    "router": "router",
    "cut": "evasion",
    "flood": "broadcast",
    "floods": "multicast",
}
"""The promise of each rule, by the first word of the rule's name; docs/network.md explains them."""

Condition = (
    Source
    | Destination
    | Protocol
    | Tagged
    | PriorityTagged
    | TaggedTwice
    | LinkService
    | Wrapped
    | ArpFrom
    | RarpFrom
    | From
    | To
    | Ports
    | Igmp
    | IgmpKind
    | Icmp6
    | Neighbour
    | Transport
    | Readable
    | Readable4
    | LaterFragment
    | Broadcast
    | Multicast
    | Within
)
Conditions = tuple[Condition, ...]


@dataclass(frozen=True)
class Rule:
    """Drops the frames that meet all conditions of `frames`, except those that meet an `unless`.

    A frame does not meet a condition on a field that cannot be read in it. `drops` says in an
    admin's words what the rule drops. `name` tells the chain of its exceptions from the tap's other
    chains.
    """

    name: str
    drops: str
    frames: Conditions
    unless: tuple[Conditions, ...] = ()

    @property
    def promise(self) -> str:
        """The word for the promise that it keeps, by which dropped frames are counted."""
        return _PROMISES[self.name.partition("-")[0]]


def rules_of(promise: TapFilter) -> tuple[Rule, ...]:
    """The rules that keep a promise, in the order in which a backend applies them."""
    return (
        *_link(promise),
        *_arp(promise),
        *_addresses(promise),
        *_discovery(promise),
        *_services(promise),
        *_limits(promise),
    )


def _link(promise: TapFilter) -> Iterator[Rule]:
    if promise.deny_mac_spoofing:
        what = f"source MAC other than {' '.join(promise.every_mac)}"
        yield Rule("mac", what, (), tuple((Source(mac),) for mac in promise.every_mac))
    if promise.deny_vlan_tags:
        yield Rule("tag", "VLAN tag", (Tagged(),), ((PriorityTagged(),),))
    elif _looks_inside(promise):
        yield Rule("tags", "second VLAN tag", (TaggedTwice(),))
    if _looks_inside(promise):
        for ethertype in (IPV4, ARP, RARP, IPV6, TAGS[0]):
            yield Rule("wrapped", "IP or ARP in IEEE 802.2", (Wrapped(ethertype),))
    if promise.deny_link_protocols:
        what = "STP, LLDP and other protocols of switches"
        for mac, mask in _LINK_GROUPS:
            yield Rule("link", what, (Destination(mac, mask),))
        yield Rule("link", what, (Protocol(LLDP),))
        yield Rule("link", what, (LinkService(_SPANNING_TREE_SAP),))


def _looks_inside(promise: TapFilter) -> bool:
    """Whether anything behind the Ethernet header matters."""
    return bool(
        promise.deny_arp_spoofing
        or promise.addresses
        or promise.deny_dhcp_server
        or promise.deny_router_advertisements
    )


def _arp(promise: TapFilter) -> Iterator[Rule]:
    macs = promise.every_mac if promise.deny_arp_spoofing else ()
    if macs or promise.addresses:
        what = " ".join(["ARP sender other than", *macs, *promise.addresses])
        senders = product(macs or (None,), _arp_addresses(promise))
        yield Rule(
            "arp",
            what,
            (Protocol(ARP),),
            tuple((ArpFrom(mac, *addresses),) for mac, addresses in senders),
        )
    if macs:
        # QEMU announces a migrated guest with RARP, which has the same layout as ARP (RFC 903).
        what = " ".join(["ARP sender other than", *macs])
        yield Rule("rarp", what, (Protocol(RARP),), tuple((RarpFrom(mac),) for mac in macs))


def _arp_addresses(promise: TapFilter) -> list[tuple[Network | None, Network | None]]:
    """The senders in its ARP, and about whose address each speaks; None means any.

    RFC 5227: a guest that checks whether an address is free has none yet. Who is about to take that
    address gives it up for such a question.
    """
    if not promise.addresses:
        return [(None, None)]
    own = promise.networks(4)
    return [*((network, None) for network in own), *((_NO_IPV4, network) for network in own)]


def _addresses(promise: TapFilter) -> Iterator[Rule]:
    if not promise.addresses:
        return
    what = f"IP source other than {' '.join(promise.addresses)}"
    asks_for_one: Conditions = (From(_NO_IPV4), To(_ALL_IPV4), Ports(4, _DHCP_CLIENT, _DHCP_SERVER))
    own = tuple((From(network),) for network in promise.networks(4))
    yield Rule("ip4", what, (Protocol(IPV4),), (*own, asks_for_one))
    # RFC 4862, RFC 4861 and RFC 3810: what a guest sends before it has an address.
    without = (NEIGHBOUR_SOLICITATION, ROUTER_SOLICITATION, *MULTICAST_LISTENER)
    yield Rule(
        "ip6",
        what,
        (Protocol(IPV6),),
        (
            *((From(network),) for network in _own_ipv6(promise)),
            *((From(_NO_IPV6), Icmp6(kind)) for kind in without),
        ),
    )


def _own_ipv6(promise: TapFilter) -> tuple[Network, ...]:
    found = (*promise.networks(6), *promise.link_locals)
    return tuple(ipaddress.collapse_addresses(found))  # type: ignore[type-var]


def _discovery(promise: TapFilter) -> Iterator[Rule]:
    """RFC 4861, 4: the messages from which neighbours learn the MAC address of an IP address.

    Only the plain forms pass. Where an option comes twice, or behind another option, different
    stacks believe different ones.
    """
    if not (promise.addresses and promise.deny_neighbour_spoofing):
        return
    what = "neighbour discovery for an address or MAC that is not its own"
    macs = [bytes.fromhex(mac.replace(":", "")) for mac in promise.every_mac]
    sources = [bytes([_SOURCE_LINK_LAYER, 1]) + mac for mac in macs]
    targets = [bytes([_TARGET_LINK_LAYER, 1]) + mac for mac in macs]
    yield Rule(
        "nd-claim",
        what,
        (Protocol(IPV6), Icmp6(NEIGHBOUR_ADVERTISEMENT)),
        tuple(
            (Neighbour(24, network, option),)
            for network in _own_ipv6(promise)
            for option in (*targets, b"")
        ),
    )
    # RFC 4862, 5.4.3: who is about to take an address gives it up if another one asks for it too.
    yield Rule(
        "nd-dad",
        what,
        (Protocol(IPV6), From(_NO_IPV6), Icmp6(NEIGHBOUR_SOLICITATION)),
        tuple(
            (Neighbour(24, network, option),)
            for network in _own_ipv6(promise)
            for option in (b"", bytes([_NONCE, 1]))
        ),
    )
    yield Rule(
        "nd-ask",
        what,
        (Protocol(IPV6), Icmp6(NEIGHBOUR_SOLICITATION)),
        (
            *((Neighbour(24, option=source),) for source in sources),
            (Neighbour(24),),
            (From(_NO_IPV6), Neighbour(24, option=bytes([_NONCE, 1]))),
        ),
    )
    yield Rule(
        "nd-router",
        what,
        (Protocol(IPV6), Icmp6(ROUTER_SOLICITATION)),
        (*((Neighbour(8, option=source),) for source in sources), (Neighbour(8),)),
    )


def _services(promise: TapFilter) -> Iterator[Rule]:
    if promise.deny_dhcp_server:
        # By the destination port only: a client accepts an answer from any port.
        yield Rule("dhcp", "DHCP answer", (Protocol(IPV4), Ports(4, 0, _DHCP_CLIENT)))
        yield Rule("dhcp", "DHCP answer", (Protocol(IPV6), Ports(6, 0, _DHCP6_CLIENT)))
        # ISC's dhclient reads frames by itself, and also those with a wrong length or version.
        what = "IPv4 with a wrong length or version"
        yield Rule("cut-ip4", what, (Protocol(IPV4),), ((Readable4(),),))
    if promise.deny_router_advertisements:
        for kind in (ROUTER_ADVERTISEMENT, REDIRECT):
            yield Rule("router", "router advertisement", (Protocol(IPV6), Icmp6(kind)))
        yield from _multicast_router()
    holds_neighbours = promise.addresses and promise.deny_neighbour_spoofing
    if promise.deny_dhcp_server or promise.deny_router_advertisements or holds_neighbours:
        yield from _readable()


def _multicast_router() -> Iterator[Rule]:
    """A bridge that listens to IGMP and MLD (`multicast_snooping`) believes whoever asks.

    By a question that does not reach them it forgets which groups others are in, and no longer
    sends them these groups' frames. IPv6 finds neighbours by such groups.
    """
    what = "multicast query"
    yield Rule("router", what, (Protocol(IPV6), Icmp6(MULTICAST_LISTENER_QUERY)))
    # A bridge reads IGMP in every fragment, a filter only in the first.
    reports = tuple((IgmpKind(kind),) for kind in IGMP_REPORTS)
    yield Rule("router-igmp", what, (Protocol(IPV4), Igmp()), reports)


def _readable() -> Iterator[Rule]:
    """RFC 7113, 3: a packet whose first fragment does not show its protocol can evade filters.

    RFC 7112 forbids sending such fragments, so that no honest packet is lost.
    """
    what = "IPv6 cut up to hide what it is"
    for protocol in (ICMP6, UDP):
        yield Rule(
            f"cut-{protocol}",
            what,
            (Protocol(IPV6), Transport(protocol)),
            ((Readable(protocol),), (LaterFragment(),)),
        )
    yield Rule("cut", what, (Protocol(IPV6),), ((Readable(0),),))


def _limits(promise: TapFilter) -> Iterator[Rule]:
    """The limits come last, so that frames that another rule drops do not count."""
    if promise.broadcast_limit:
        what = f"broadcast beyond {promise.broadcast_limit} a second"
        yield Rule("flood", what, (Broadcast(),), ((Within(promise.broadcast_limit),),))
    if promise.multicast_limit:
        what = f"multicast beyond {promise.multicast_limit} a second"
        yield Rule("floods", what, (Multicast(),), ((Within(promise.multicast_limit),),))

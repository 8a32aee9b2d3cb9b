# SPDX-License-Identifier: GPL-2.0-or-later
"""One suite of real frames for all backends: what each promise lets through a tap, and what not.

A tap on a bridge, with no VM at it: the frames are what its guest might send.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_Advertise
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert, fragment
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLQuery,
    ICMPv6MLQuery2,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6NDOptUnknown,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    PadN,
    RouterAlert,
    fragment6,
)
from scapy.layers.l2 import ARP, LLC, SNAP, STP, Dot1AD, Dot1Q, Dot3, Ether
from scapy.packet import Packet, Raw
from scapy.utils6 import in6_mactoifaceid

from tests.host import network
from tests.host.command import run
from tests.host.network import neighbour, workstation
from tests.host.tap import inject, open_tap
from tests.libvirt.warden import until
from tests.libvirt.wire import Wire
from virtwarden.system.netfilter import BACKENDS, TapFilter
from virtwarden.system.netfilter.rules import IGMP_REPORTS, LLDP

TAP = "vnet-frames"
OWN, OTHER, ALL = "52:54:00:00:00:01", "52:54:00:00:00:02", "ff:ff:ff:ff:ff:ff"
# RFC 5798, 7.3: of the virtual routers 10 and 11, for IPv4 and for IPv6
VRRP, VRRP6 = "00:00:5e:00:01:0a", "00:00:5e:00:02:0a"
OTHER_VRRP, OTHER_VRRP6 = "00:00:5e:00:01:0b", "00:00:5e:00:02:0b"
OWN_IP, OWN_NET_IP, OTHER_IP = "192.0.2.10", "198.51.100.3", "192.0.2.1"
OWN_IP6, OWN_NET_IP6, OTHER_IP6 = "2001:db8::10", "2001:db8:1::77", "2001:db8::1"
OWN_LINK, OTHER_LINK, MADE_UP_LINK = "fe80::5054:ff:fe00:1", "fe80::1", "fe80::1234:5678:9abc:def0"
NO_IP = "0.0.0.0"  # noqa: S104 - the address of who has none
ALL_NODES, LISTENERS, SOLICITED = "ff02::1", "ff02::16", "ff02::1:ff00:10"
OTHER_SOLICITED = "ff02::1:ff00:1"

MAC_ONLY = TapFilter(TAP, OWN, deny_mac_spoofing=True, deny_arp_spoofing=True, deny_vlan_tags=True)
ADDRESSES = replace(MAC_ONLY, addresses=(OWN_IP, "198.51.100.0/28", OWN_IP6, "2001:db8:1::/64"))
SERVICES = replace(
    MAC_ONLY, deny_dhcp_server=True, deny_router_advertisements=True, deny_link_protocols=True
)
TRUNK = replace(
    ADDRESSES, deny_vlan_tags=False, deny_dhcp_server=True, deny_router_advertisements=True
)


def ether(payload: Packet, *, src: str = OWN, dst: str = ALL, **fields: Any) -> bytes:
    return bytes(Ether(src=src, dst=dst, **fields) / payload)


def service(payload: Packet, *, dst: str = ALL) -> bytes:
    """A frame of IEEE 802.2."""
    return bytes(Dot3(src=OWN, dst=dst) / payload)


def arp(sender: str, address: str, *, src: str = OWN, op: int = 1, target: str = OTHER_IP) -> bytes:
    return ether(ARP(op=op, hwsrc=sender, psrc=address, pdst=target), src=src)


def ip(source: str, payload: Packet | None = None, destination: str = OTHER_IP) -> Packet:
    return IP(src=source, dst=destination) / (payload or ICMP())


def ip6(source: str, payload: Packet | None = None, destination: str = OTHER_IP6) -> Packet:
    return IPv6(src=source, dst=destination) / (payload or ICMPv6EchoRequest())


def advertisement(target: str, *options: Packet, source: str = OWN_IP6) -> Packet:
    packet = IPv6(src=source, dst=ALL_NODES) / ICMPv6ND_NA(tgt=target, R=0, S=0, O=1)
    for option in options:
        packet /= option
    return packet


def solicitation(source: str, *options: Packet, target: str = OTHER_IP6) -> Packet:
    packet = IPv6(src=source, dst=SOLICITED) / ICMPv6ND_NS(tgt=target)
    for option in options:
        packet /= option
    return packet


def tells(mac: str) -> Packet:
    return ICMPv6NDOptDstLLAddr(lladdr=mac)


def asks(mac: str) -> Packet:
    return ICMPv6NDOptSrcLLAddr(lladdr=mac)


NONCE = ICMPv6NDOptUnknown(type=14, len=1, data=b"\1\2\3\4\5\6")
DHCP_DISCOVER = (
    UDP(sport=68, dport=67) / BOOTP(op=1) / DHCP(options=[("message-type", "discover"), "end"])
)
DHCP_OFFER = (
    UDP(sport=67, dport=68) / BOOTP(op=2) / DHCP(options=[("message-type", "offer"), "end"])
)
DHCP6_OFFER = UDP(sport=547, dport=546) / DHCP6_Advertise()
MLD = IPv6ExtHdrHopByHop(options=[RouterAlert(), PadN(optdata=b"")]) / ICMPv6MLReport2()


def later_half(packet: Packet, cut: int) -> tuple[Packet, Packet]:
    """The two fragments of an IPv6 packet, the first of which ends `cut` bytes into the payload."""
    payload = bytes(packet.payload)
    kind = packet.nh
    first, second = (
        IPv6(src=packet.src, dst=packet.dst)
        / IPv6ExtHdrFragment(nh=kind, offset=offset // 8, m=more, id=7)
        / Raw(piece)
        for offset, more, piece in ((0, 1, payload[:cut]), (cut, 0, payload[cut:]))
    )
    return first, second


def hidden(packet: Packet) -> Packet:
    """The first fragment of a packet in which destination options fill all of it."""
    filled = IPv6(src=packet.src, dst=packet.dst) / IPv6ExtHdrDestOpt(
        options=[PadN(optdata=bytes(12))]
    )
    return later_half(filled / packet.payload, 16)[0]


def half_hidden(packet: Packet) -> Packet:
    """The first fragment of a packet, in which even the options are cut."""
    filled = IPv6(src=packet.src, dst=packet.dst) / IPv6ExtHdrDestOpt(
        options=[PadN(optdata=bytes(20))]
    )
    return later_half(filled / packet.payload, 8)[0]


def behind_options(packet: Packet) -> Packet:
    options = IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))])
    return IPv6(src=packet.src, dst=packet.dst) / options / packet.payload


def vrrp_frames(mac: str, mac6: str) -> dict[str, bytes]:
    """What a virtual router sends from its own MAC addresses (RFC 5798, 7.3)."""
    router6 = link_local(mac6)
    return {
        "VRRP": ether(
            IP(src=OWN_IP, dst="224.0.0.18", ttl=255, proto=112) / Raw(bytes(20)), src=mac
        ),
        "its IPv4": ether(ip(OWN_NET_IP), src=mac),
        "its gratuitous ARP": arp(mac, OWN_NET_IP, src=mac),
        "its ARP reply": arp(mac, OWN_NET_IP, src=mac, op=2),
        "its RARP": ether(ARP(op=3, hwsrc=mac, hwdst=mac), src=mac, type=0x8035),
        "VRRP over IPv6": ether(
            IPv6(src=router6, dst="ff02::12", hlim=255, nh=112) / Raw(bytes(32)), src=mac6
        ),
        "its IPv6": ether(ip6(OWN_NET_IP6), src=mac6),
        "its router solicitation": ether(
            ip6(router6, ICMPv6ND_RS() / asks(mac6), destination="ff02::2"), src=mac6
        ),
    }


def vrrp_claims(mac: str) -> dict[str, bytes]:
    """Neighbour discovery of that MAC address, in a frame from the NIC's own."""
    return {
        "its advertisement": ether(advertisement(OWN_NET_IP6, tells(mac), source=OWN_NET_IP6)),
        "its link-local advertisement": ether(
            advertisement(link_local(mac), tells(mac), source=OWN_IP6)
        ),
        "its solicitation": ether(solicitation(OWN_IP6, asks(mac))),
    }


def link_local(mac: str) -> str:
    return f"fe80::{in6_mactoifaceid(mac).lower()}"


BIG = UDP(sport=5000, dport=5001) / Raw(bytes(2000))
BIG_UDP6 = fragment6(IPv6(src=OWN_IP6, dst=OTHER_IP6) / IPv6ExtHdrFragment(id=9) / BIG, 1280)
BIG_PING6 = fragment6(
    IPv6(src=OWN_IP6, dst=OTHER_IP6)
    / IPv6ExtHdrFragment(id=10)
    / ICMPv6EchoRequest(data=bytes(2000)),
    1280,
)
BIG_UDP4 = fragment(IP(src=OWN_IP, dst=OTHER_IP) / BIG, 1200)

HONEST_WITH_ADDRESSES = {
    "IPv4": ether(ip(OWN_IP)),
    "IPv4 out of its network": ether(ip(OWN_NET_IP)),
    "IPv4 TCP": ether(ip(OWN_IP, TCP(sport=22, dport=5000))),
    "DHCP of one that has no address yet": ether(
        ip(NO_IP, DHCP_DISCOVER, destination="255.255.255.255")
    ),
    "DHCP renewal": ether(ip(OWN_IP, DHCP_DISCOVER)),
    "ARP request": arp(OWN, OWN_IP),
    "ARP reply": arp(OWN, OWN_NET_IP, op=2),
    "ARP probe": arp(OWN, NO_IP, target=OWN_IP),
    "ARP probe out of its network": arp(OWN, NO_IP, target=OWN_NET_IP),
    "IPv6": ether(ip6(OWN_IP6)),
    "IPv6 out of its network": ether(ip6(OWN_NET_IP6)),
    "IPv6 link-local": ether(ip6(OWN_LINK, destination=OTHER_LINK)),
    "IPv6 TCP behind options": ether(behind_options(ip6(OWN_IP6, TCP(dport=22)))),
    "duplicate address detection": ether(solicitation("::", target=OWN_IP6)),
    "duplicate address detection with a nonce": ether(solicitation("::", NONCE, target=OWN_LINK)),
    "neighbour solicitation": ether(solicitation(OWN_IP6, asks(OWN))),
    "neighbour solicitation, link-local": ether(solicitation(OWN_LINK, asks(OWN))),
    "neighbour solicitation, unicast": ether(solicitation(OWN_IP6)),
    "neighbour advertisement": ether(advertisement(OWN_IP6, tells(OWN))),
    "neighbour advertisement out of its network": ether(
        advertisement(OWN_NET_IP6, tells(OWN), source=OWN_NET_IP6)
    ),
    "neighbour advertisement, link-local": ether(
        advertisement(OWN_LINK, tells(OWN), source=OWN_LINK)
    ),
    "neighbour advertisement without option": ether(advertisement(OWN_IP6)),
    "router solicitation": ether(ip6(OWN_LINK, ICMPv6ND_RS() / asks(OWN), destination="ff02::2")),
    "router solicitation of one without address": ether(
        ip6("::", ICMPv6ND_RS(), destination="ff02::2")
    ),
    "multicast listener report": ether(ip6(OWN_LINK, MLD, destination=LISTENERS)),
    "multicast listener report of one without address": ether(
        ip6("::", MLD, destination=LISTENERS)
    ),
    **{f"IPv6 UDP, fragment {n}": ether(each) for n, each in enumerate(BIG_UDP6)},
    **{f"IPv6 ping, fragment {n}": ether(each) for n, each in enumerate(BIG_PING6)},
    **{f"IPv4 UDP, fragment {n}": ether(each) for n, each in enumerate(BIG_UDP4)},
    "an unknown protocol": ether(Raw(bytes(46)), type=0x88B5),
}
FORGED_ADDRESSES = {
    "another's IPv4": ether(ip(OTHER_IP)),
    "IPv4 next to its network": ether(ip("198.51.100.16")),
    "IPv4 from nobody": ether(ip(NO_IP)),
    "IPv4 from nobody, UDP not DHCP": ether(
        ip(NO_IP, UDP(sport=68, dport=69), destination="255.255.255.255")
    ),
    "IPv4 from nobody, DHCP to one": ether(ip(NO_IP, DHCP_DISCOVER)),
    "IPv4 link-local": ether(ip("169.254.169.254")),
    "IPv4 from all": ether(ip("255.255.255.255")),
    "IPv4, cut before its source": ether(Raw(bytes(ip(OWN_IP))[:10]), type=0x0800),
    "ARP for another's IP": arp(OWN, OTHER_IP),
    "ARP reply for another's IP": arp(OWN, OTHER_IP, op=2),
    "ARP of another's MAC for its own IP": arp(OTHER, OWN_IP, op=2),
    "ARP for an IPv4 link-local": arp(OWN, "169.254.169.254"),
    "ARP probe of another's IP": arp(OWN, NO_IP, target=OTHER_IP),
    "ARP probe of another's IP, as a reply": arp(OWN, NO_IP, target=OTHER_IP, op=2),
    "another's IPv6": ether(ip6(OTHER_IP6)),
    "IPv6 next to its network": ether(ip6("2001:db8:2::77")),
    "another's IPv6 link-local": ether(ip6(OTHER_LINK, destination=ALL_NODES)),
    "a made-up IPv6 link-local": ether(ip6(MADE_UP_LINK, destination=ALL_NODES)),
    "IPv6 from nobody": ether(ip6("::")),
    "IPv6 from nobody, UDP": ether(ip6("::", UDP(dport=53))),
    "IPv6 from a group": ether(ip6(ALL_NODES)),
    "IPv6, cut before its source": ether(Raw(bytes(ip6(OWN_IP6))[:20]), type=0x86DD),
    "another's IPv6 behind options": ether(behind_options(ip6(OTHER_IP6))),
    "another's IPv4 in 802.2": service(
        LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0, code=0x0800) / ip(OTHER_IP), dst=ALL
    ),
    "another's IPv4 in 802.1H": service(
        LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0xF8, code=0x0800) / ip(OTHER_IP), dst=ALL
    ),
    "another's ARP in 802.1H": service(
        LLC(dsap=0xAA, ssap=0xAA, ctrl=3)
        / SNAP(OUI=0xF8, code=0x0806)
        / ARP(op=2, hwsrc=OTHER, psrc=OTHER_IP)
    ),
    "another's IPv4 in SNAP of any vendor": service(
        LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0x123456, code=0x0800) / ip(OTHER_IP)
    ),
    "another's ARP in 802.2": service(
        LLC(dsap=0xAA, ssap=0xAA, ctrl=3)
        / SNAP(OUI=0, code=0x0806)
        / ARP(op=2, hwsrc=OTHER, psrc=OTHER_IP)
    ),
}
FORGED_NEIGHBOURS = {
    "advertisement of another's address": ether(advertisement(OTHER_IP6, tells(OWN))),
    "advertisement of another's link-local": ether(advertisement(OTHER_LINK, tells(OWN))),
    "advertisement of another's address without option": ether(advertisement(OTHER_IP6)),
    "advertisement of another's MAC": ether(advertisement(OWN_IP6, tells(OTHER))),
    "advertisement with two options": ether(advertisement(OWN_IP6, tells(OWN), tells(OTHER))),
    "advertisement with another option first": ether(advertisement(OWN_IP6, NONCE, tells(OTHER))),
    "advertisement behind options": ether(behind_options(advertisement(OTHER_IP6, tells(OWN)))),
    "advertisement in a fragment": ether(later_half(advertisement(OTHER_IP6, tells(OWN)), 8)[0]),
    "advertisement hidden by a fragment": ether(hidden(advertisement(OTHER_IP6, tells(OWN)))),
    "solicitation that tells another's MAC": ether(solicitation(OWN_IP6, asks(OTHER))),
    "solicitation that tells two MACs": ether(solicitation(OWN_IP6, asks(OWN), asks(OTHER))),
    "solicitation that hides another's MAC": ether(solicitation(OWN_IP6, NONCE, asks(OTHER))),
    "duplicate address detection of another's address": ether(solicitation("::")),
    "duplicate address detection of another's link-local": ether(
        solicitation("::", target=OTHER_LINK)
    ),
    "duplicate address detection of another's address with a nonce": ether(
        solicitation("::", NONCE)
    ),
    "router solicitation that tells another's MAC": ether(
        ip6(OWN_LINK, ICMPv6ND_RS() / asks(OTHER), destination="ff02::2")
    ),
}
FORGED_MAC = {
    "another's MAC": ether(ip(OWN_IP), src=OTHER),
    "another's MAC in ARP": arp(OTHER, OWN_IP),
    "another's MAC under ARP": arp(OWN, OWN_IP, src=OTHER),
}
PRIORITIES = {
    "a priority": ether(Dot1Q(vlan=0) / ip(OWN_IP)),
    "a priority of 7": ether(Dot1Q(vlan=0, prio=7) / ip(OWN_IP)),
}
TAGS = {
    "a tag": ether(Dot1Q(vlan=7) / ip(OWN_IP)),
    "the last VLAN's tag": ether(Dot1Q(vlan=4095, prio=7) / ip(OWN_IP)),
    "a service tag": ether(Dot1AD(vlan=7) / ip(OWN_IP)),
    "a service tag without a VLAN": ether(Dot1AD(vlan=0) / ip(OWN_IP)),
}
TAGS_IN_TAGS = {
    "a tag in a service tag": ether(Dot1AD(vlan=8) / Dot1Q(vlan=7) / ip(OWN_IP)),
    "a priority in a priority": ether(Dot1Q(vlan=0) / Dot1Q(vlan=0) / ip(OWN_IP)),
    "a tag in a tag": ether(Dot1Q(vlan=8) / Dot1Q(vlan=7) / ip(OWN_IP)),
    "three tags": ether(Dot1Q(vlan=9) / Dot1Q(vlan=8) / Dot1Q(vlan=7) / ip(OWN_IP)),
    "an old service tag": ether(Raw(b"\0\7\x08\0" + bytes(ip(OWN_IP))), type=0x9100),
    "an old service tag in a tag": ether(
        Dot1Q(vlan=7, type=0x9100) / Raw(b"\0\7\x08\0" + bytes(ip(OWN_IP)))
    ),
}


def igmp(kind: int, source: str = OWN_IP, **fields: Any) -> Packet:
    """IGMP to all systems, whole or as a fragment; its checksum does not matter here."""
    options = [IPOption_Router_Alert()]
    message = bytes([kind, 0, 0, 0, 224, 0, 0, 251])
    return IP(src=source, dst="224.0.0.1", ttl=1, proto=2, options=options, **fields) / Raw(message)


def mld(question: Packet, to: str = ALL_NODES) -> Packet:
    alert = IPv6ExtHdrHopByHop(options=[RouterAlert(), PadN(optdata=b"")])
    return IPv6(src=OWN_LINK, dst=to, hlim=1) / alert / question


ADVERTISED = ICMPv6ND_RA(routerlifetime=1800)
FORGED_SERVICES = {
    "DHCP offer": ether(ip(OWN_IP, DHCP_OFFER)),
    "DHCP offer from another port": ether(ip(OWN_IP, UDP(sport=1, dport=68) / Raw(b"offer"))),
    "DHCP offer in an IP packet longer than its frame": ether(
        IP(src=OWN_IP, dst=OTHER_IP, len=1400) / DHCP_OFFER
    ),
    "DHCP offer in an IP packet of no version": ether(
        IP(src=OWN_IP, dst=OTHER_IP, version=5) / DHCP_OFFER
    ),
    "DHCP offer, in fragments": ether(fragment(ip(OWN_IP, DHCP_OFFER), 64)[0]),
    "DHCPv6 offer": ether(ip6(OWN_LINK, DHCP6_OFFER)),
    "DHCPv6 offer behind options": ether(behind_options(ip6(OWN_LINK, DHCP6_OFFER))),
    "DHCPv6 offer hidden by a fragment": ether(hidden(ip6(OWN_LINK, DHCP6_OFFER))),
    "router advertisement": ether(ip6(OWN_LINK, ADVERTISED, destination=ALL_NODES)),
    "router advertisement behind options": ether(
        behind_options(ip6(OWN_LINK, ADVERTISED, destination=ALL_NODES))
    ),
    "router advertisement in a fragment": ether(
        later_half(ip6(OWN_LINK, ADVERTISED, destination=ALL_NODES), 8)[0]
    ),
    "router advertisement hidden by a fragment": ether(
        hidden(ip6(OWN_LINK, ADVERTISED, destination=ALL_NODES))
    ),
    "router advertisement half hidden by a fragment": ether(
        half_hidden(ip6(OWN_LINK, ADVERTISED, destination=ALL_NODES))
    ),
    "redirect": ether(ip6(OWN_LINK, ICMPv6ND_Redirect())),
    "IGMP query": ether(igmp(0x11)),
    "IGMP query in what looks like a later fragment": ether(igmp(0x11, frag=5)),
    "DVMRP": ether(igmp(0x13)),
    "MLD query": ether(mld(ICMPv6MLQuery())),
    "MLD query of version 2": ether(mld(ICMPv6MLQuery2())),
}
FORGED_LINK = {
    "LLDP to another group": ether(Raw(bytes(46)), dst=ALL, type=LLDP),
    "CDP": service(
        LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0x0C, code=0x2000) / Raw(bytes(40)),
        dst="01:00:0c:cc:cc:cc",
    ),
    "PVST+": service(
        LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0x0C, code=0x010B) / STP(),
        dst="01:00:0c:cc:cc:cd",
    ),
    "GVRP": service(LLC(dsap=0x42, ssap=0x42, ctrl=3) / Raw(bytes(40)), dst="01:80:c2:00:00:21"),
    "STP to all": service(LLC(dsap=0x42, ssap=0x42, ctrl=3) / STP(), dst=ALL),
}
# What no bridge forwards comes up to the host.
TO_THE_HOST = {
    "STP": service(LLC(dsap=0x42, ssap=0x42, ctrl=3) / STP(), dst="01:80:c2:00:00:00"),
    "LLDP": ether(Raw(bytes(46)), dst="01:80:c2:00:00:0e", type=LLDP),
    "LACP": ether(Raw(bytes(46)), dst="01:80:c2:00:00:02", type=0x8809),
}
HONEST_SERVICES = {
    "DHCP request": ether(ip(NO_IP, DHCP_DISCOVER, destination="255.255.255.255")),
    "UDP from a server's port": ether(ip(OWN_IP, UDP(sport=67, dport=5000))),
    "any IPv4": ether(ip(OTHER_IP)),
    "any ARP of its own MAC": arp(OWN, OTHER_IP),
    "any neighbour advertisement": ether(advertisement(OTHER_IP6, tells(OWN))),
    "router solicitation": ether(ip6(OWN_LINK, ICMPv6ND_RS(), destination="ff02::2")),
    **{f"IGMP of type {kind:#x}": ether(igmp(kind)) for kind in IGMP_REPORTS},
    "multicast listener report": ether(ip6(OWN_LINK, MLD, destination=LISTENERS)),
    **{f"IPv4 UDP, fragment {n}": ether(each) for n, each in enumerate(BIG_UDP4)},
    "any IPv6 behind options": ether(behind_options(ip6(OTHER_IP6, UDP(dport=53)))),
    **{f"IPv6 UDP, fragment {n}": ether(each) for n, each in enumerate(BIG_UDP6)},
    **{f"IPv6 ping, fragment {n}": ether(each) for n, each in enumerate(BIG_PING6)},
}


def tagged(frames: dict[str, bytes], vlan: int = 7) -> dict[str, bytes]:
    """The same frames, each behind a tag."""
    tag = b"\x81\0" + vlan.to_bytes(2)
    return {
        f"{what}, behind a tag of {vlan}": frame[:12] + tag + frame[12:]
        for what, frame in frames.items()
    }


_FIREWALL = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


@contextmanager
def no_ip_firewall() -> Iterator[None]:
    """No module but ours drops what is wrong in IPv4: br_netfilter does where it is loaded."""
    former = _FIREWALL.read_text() if _FIREWALL.exists() else ""
    if former:
        _FIREWALL.write_text("0")
    try:
        yield
    finally:
        if former:
            _FIREWALL.write_text(former)


@contextmanager
def filtered(backend: str, promise: TapFilter) -> Iterator[Wire]:
    """A tap on a bridge, held to a promise, and a neighbour who listens."""
    with no_ip_firewall(), network.bridge("br-frames") as bridge:
        tap = open_tap(promise.tap)
        run("ip", "link", "set", promise.tap, "master", bridge, "up")
        network.await_forwarding(promise.tap)
        BACKENDS[backend].install([promise])
        try:
            assert BACKENDS[backend].missing(promise) == ""
            with neighbour(bridge) as sniffer:
                yield Wire(promise.tap, OWN, sniffer)
        finally:
            BACKENDS[backend].remove([promise.tap])
            os.close(tap)


def passed(wire: Wire, frames: dict[str, bytes]) -> list[str]:
    """The names of those that arrived."""
    arrived = wire.passes(*frames.values())
    return [what for what, frame in frames.items() if frame in arrived]


_OPTIONS = ("deny_neighbour_spoofing", "deny_link_protocols")


def without(promise: TapFilter, backend: str) -> TapFilter:
    """As much of a promise as a backend can keep."""
    for option in _OPTIONS:
        if BACKENDS[backend].cannot(promise):
            promise = replace(promise, **{option: False})
    return promise


backends = pytest.mark.parametrize("backend", sorted(BACKENDS))


@backends
def test_a_guest_is_held_to_its_addresses(backend: str) -> None:
    with filtered(backend, without(ADDRESSES, backend)) as wire:
        assert passed(wire, HONEST_WITH_ADDRESSES) == [*HONEST_WITH_ADDRESSES]
        forged = FORGED_MAC | FORGED_ADDRESSES | TAGS | TAGS_IN_TAGS
        assert passed(wire, forged | tagged(forged) | tagged(HONEST_WITH_ADDRESSES)) == []


def is_dropped_with_all_tags(backend: str, frames: dict[str, bytes]) -> list[str]:
    """What of frames with a priority tag arrives, of those that are honest."""
    return [] if backend == "ebtables" else [*frames]


@backends
def test_a_priority_tag_passes_where_the_backend_looks_behind_it(backend: str) -> None:
    """IEEE 802.1p: Windows guests with a QoS policy send them."""
    with filtered(backend, without(ADDRESSES, backend)) as wire:
        honest = PRIORITIES | tagged(HONEST_WITH_ADDRESSES, vlan=0)
        assert passed(wire, honest) == is_dropped_with_all_tags(backend, honest)


@backends
def test_a_priority_tag_hides_nothing(backend: str) -> None:
    with filtered(backend, without(ADDRESSES, backend)) as wire:
        forged = FORGED_MAC | FORGED_ADDRESSES | TAGS | TAGS_IN_TAGS | PRIORITIES
        forged |= {} if BACKENDS[backend].cannot(ADDRESSES) else FORGED_NEIGHBOURS
        assert passed(wire, tagged(forged, vlan=0)) == []
    promise = without(SERVICES, backend)
    with filtered(backend, promise) as wire:
        forged = FORGED_SERVICES | (FORGED_LINK if promise.deny_link_protocols else {})
        assert passed(wire, tagged(forged, vlan=0)) == []


@backends
def test_a_guest_has_the_macs_that_it_is_given_and_no_other(backend: str) -> None:
    """The frames of keepalived with use_vmac: VRRP's MAC address is the sender's everywhere."""
    promise = without(replace(ADDRESSES, macs=(VRRP, VRRP6)), backend)
    with filtered(backend, promise) as wire:
        honest = HONEST_WITH_ADDRESSES | vrrp_frames(VRRP, VRRP6)
        assert passed(wire, honest) == [*honest]
        forged = vrrp_frames(OTHER_VRRP, OTHER_VRRP6) | FORGED_MAC | FORGED_ADDRESSES
        assert passed(wire, forged) == []
        if promise.deny_neighbour_spoofing:
            assert passed(wire, FORGED_NEIGHBOURS | vrrp_claims(OTHER_VRRP6)) == []
            assert passed(wire, vrrp_claims(VRRP6)) == [*vrrp_claims(VRRP6)]
    with filtered(backend, without(ADDRESSES, backend)) as wire:
        assert passed(wire, vrrp_frames(VRRP, VRRP6)) == []


@backends
def test_a_guest_is_held_to_its_addresses_in_neighbour_discovery(backend: str) -> None:
    if BACKENDS[backend].cannot(ADDRESSES):
        assert "neighbour discovery" in BACKENDS[backend].cannot(ADDRESSES)
        return
    with filtered(backend, ADDRESSES) as wire:
        assert passed(wire, HONEST_WITH_ADDRESSES) == [*HONEST_WITH_ADDRESSES]
        assert passed(wire, FORGED_NEIGHBOURS) == []


@backends
def test_a_guest_without_addresses_may_use_any_but_no_other_mac(backend: str) -> None:
    with filtered(backend, MAC_ONLY) as wire:
        allowed = {**FORGED_NEIGHBOURS, **HONEST_WITH_ADDRESSES, "ARP": arp(OWN, OTHER_IP)}
        assert passed(wire, allowed) == [*allowed]
        assert passed(wire, FORGED_MAC | TAGS | TAGS_IN_TAGS) == []
        assert passed(wire, PRIORITIES) == is_dropped_with_all_tags(backend, PRIORITIES)


@backends
def test_a_guest_with_all_of_ipv6_is_held_to_its_ipv4(backend: str) -> None:
    promise = without(replace(ADDRESSES, addresses=(OWN_IP, "::/0")), backend)
    with filtered(backend, promise) as wire:
        assert passed(wire, {"IPv6": ether(ip6(OTHER_IP6))}) == ["IPv6"]
        assert passed(wire, {"IPv4": ether(ip(OTHER_IP)), "ARP": arp(OWN, OTHER_IP)}) == []


@backends
def test_link_local_addresses_of_its_own_making_can_be_given(backend: str) -> None:
    promise = without(replace(ADDRESSES, addresses=(OWN_IP6, "fe80::/10")), backend)
    with filtered(backend, promise) as wire:
        honest = {
            "IPv6": ether(ip6(MADE_UP_LINK)),
            "advertisement": ether(advertisement(MADE_UP_LINK, tells(OWN), source=MADE_UP_LINK)),
        }
        assert passed(wire, honest) == [*honest]
        assert passed(wire, {"another's IPv6": ether(ip6(OTHER_IP6))}) == []


@backends
def test_a_guest_answers_no_dhcp_and_is_no_router_or_switch(backend: str) -> None:
    promise = without(SERVICES, backend)
    with filtered(backend, promise) as wire:
        assert passed(wire, HONEST_SERVICES) == [*HONEST_SERVICES]
        forged = FORGED_SERVICES | (FORGED_LINK if promise.deny_link_protocols else {})
        assert passed(wire, forged | tagged(forged)) == []


@backends
def test_a_guest_may_serve_where_nobody_asked_that_it_may_not(backend: str) -> None:
    served = {
        what: frame for what, frame in FORGED_SERVICES.items() if "fragment" not in what
    } | FORGED_LINK
    with filtered(backend, MAC_ONLY) as wire:
        assert passed(wire, served) == [*served]


@backends
def test_a_guest_on_a_trunk_is_looked_at_behind_its_tag(backend: str) -> None:
    if BACKENDS[backend].cannot(replace(TRUNK, deny_neighbour_spoofing=False)):
        assert "VLAN tags" in BACKENDS[backend].cannot(TRUNK)
        return
    with filtered(backend, TRUNK) as wire:
        honest = {**TAGS, **PRIORITIES, **HONEST_WITH_ADDRESSES, **tagged(HONEST_WITH_ADDRESSES)}
        assert passed(wire, honest) == [*honest]
        forged = FORGED_MAC | FORGED_ADDRESSES | FORGED_NEIGHBOURS | FORGED_SERVICES
        assert passed(wire, forged | tagged(forged) | TAGS_IN_TAGS) == []


@backends
def test_tags_of_any_depth_pass_where_nothing_is_looked_for_behind_them(backend: str) -> None:
    promise = replace(MAC_ONLY, deny_arp_spoofing=False, deny_vlan_tags=False)
    assert BACKENDS[backend].cannot(promise) == ""
    with filtered(backend, promise) as wire:
        assert passed(wire, TAGS | TAGS_IN_TAGS) == [*TAGS, *TAGS_IN_TAGS]
        assert passed(wire, {"another's MAC": ether(Dot1Q(vlan=7) / ip(OWN_IP), src=OTHER)}) == []


class Upstairs:
    """The host, which takes what the bridge does not forward."""

    def __init__(self, interface: str, protocol: int) -> None:
        # With a protocol of its own, a socket gets a frame after all filters, not before them.
        self._packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
        self._packets.bind((interface, protocol))
        self._packets.setblocking(False)

    def __enter__(self) -> Upstairs:
        return self

    def __exit__(self, *_: object) -> None:
        self._packets.close()

    def heard(self) -> list[bytes]:
        frames = []
        while True:
            try:
                frames.append(self._packets.recv(2048))
            except BlockingIOError:
                return frames


PROTOCOLS = {"LLDP": LLDP, "LACP": 0x8809}


@backends
@pytest.mark.parametrize("what", PROTOCOLS)
def test_what_no_bridge_forwards_comes_up_to_the_host_unless_it_is_denied(
    backend: str, what: str
) -> None:
    with filtered(backend, MAC_ONLY) as wire, Upstairs(TAP, PROTOCOLS[what]) as host:
        assert passed(wire, TO_THE_HOST) == ["STP"], "which a bridge without STP forwards"
        assert host.heard() == [TO_THE_HOST[what]]
    if BACKENDS[backend].cannot(SERVICES):
        assert "LLDP" in BACKENDS[backend].cannot(SERVICES)
        return
    with filtered(backend, SERVICES) as wire, Upstairs(TAP, PROTOCOLS[what]) as host:
        assert passed(wire, TO_THE_HOST) == []
        assert host.heard() == []


@backends
def test_a_bridge_that_forwards_lldp_does_not_forward_a_guests(backend: str) -> None:
    if BACKENDS[backend].cannot(SERVICES):
        return
    with filtered(backend, SERVICES) as wire:
        run("ip", "link", "set", "br-frames", "type", "bridge", "group_fwd_mask", "0x4000")
        assert passed(wire, TO_THE_HOST) == []


@backends
def test_a_bridge_learns_no_mac_but_its_own_from_a_guest(backend: str) -> None:
    """By frames that it does not forward as well: they teach it like any other."""
    with filtered(backend, MAC_ONLY) as wire:
        forged = {
            what: frame[:6] + bytes.fromhex(OTHER.replace(":", "")) + frame[12:]
            for what, frame in (TO_THE_HOST | {"IPv4": ether(ip(OWN_IP))}).items()
        }
        # LLDP goes past all filters of the bridge's own: ebtables' are helped by the gate.
        run("ip", "link", "set", "br-frames", "type", "bridge", "no_linklocal_learn", "1")
        assert passed(wire, forged) == []
        learnt = run("bridge", "fdb", "show", "dev", TAP).stdout
        assert OWN in learnt
        assert OTHER not in learnt


def memberships() -> str:
    """Which groups the bridge knows somebody to be in, and where it takes routers to be."""
    return run("bridge", "-d", "mdb", "show", "dev", "br-frames").stdout


def is_member() -> bool:
    return f"grp {OTHER_SOLICITED} " in memberships()


@backends
@pytest.mark.parametrize("promise", [MAC_ONLY, SERVICES], ids=["allowed", "denied"])
def test_a_guest_takes_nobody_out_of_a_multicast_group(backend: str, promise: TapFilter) -> None:
    """IPv6 looks for a neighbour by a group. The last query does not reach who is in it."""
    queries = (
        ether(mld(ICMPv6MLQuery()), dst="33:33:00:00:00:01"),
        ether(
            mld(ICMPv6MLQuery(mrd=1, mladdr=OTHER_SOLICITED), to=SOLICITED), dst="33:33:ff:00:00:10"
        ),
    )
    with filtered(backend, without(promise, backend)) as wire:
        snooping = ("mcast_snooping", "1", "mcast_last_member_interval", "1")
        run("ip", "link", "set", "br-frames", "type", "bridge", *snooping)
        with workstation("br-frames", f"{OTHER_IP6}/64"):
            until(is_member)
            inject(wire.tap, *queries)
            if promise is MAC_ONLY:
                until(lambda: not is_member())
                assert TAP in memberships(), "it is taken for a router"
            else:
                assert passed(wire, {"an honest frame": ether(ip(OWN_IP))})
                assert TAP not in memberships(), "it is taken for a router"
                assert is_member()


def burst(wire: Wire, frame: bytes, count: int) -> int:
    """How many of so many frames, sent at once, arrived."""
    inject(wire.tap, *[frame] * count, ether(Raw(b"last of all"), type=0x88B5, dst=OTHER))
    return len([f for f in wire.neighbour.frames_until(b"last of all") if f == frame])


@backends
@pytest.mark.parametrize(
    ("limit", "dst"), [("broadcast_limit", ALL), ("multicast_limit", "01:00:5e:00:00:fb")]
)
def test_a_flood_is_cut_to_its_limit(backend: str, limit: str, dst: str) -> None:
    frame = ether(Raw(bytes(46)), type=0x88B5, dst=dst)
    others = ether(Raw(bytes(46)), type=0x88B5, dst=OTHER)
    with filtered(backend, replace(MAC_ONLY, **{limit: 10})) as wire:
        assert 10 <= burst(wire, frame, 100) < 60
        assert burst(wire, others, 100) == 100
    with filtered(backend, MAC_ONLY) as wire:
        assert burst(wire, frame, 100) == 100

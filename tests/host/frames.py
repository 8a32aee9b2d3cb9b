# SPDX-License-Identifier: GPL-2.0-or-later
"""Ethernet frames, in bytes."""

from __future__ import annotations

import ipaddress
import struct

BROADCAST = "ff:ff:ff:ff:ff:ff"
ETHERTYPE_ARP = 0x0806
# IEEE 802, for local experiments: nobody answers it, and no IP filter looks into it.
ETHERTYPE_EXPERIMENT = 0x88B5
_ETHERTYPE_VLAN = 0x8100
# Without the checksum, which the card adds.
_SHORTEST_FRAME = 60
_ADDRESSES_LENGTH = 12

_ARP_ETHERNET = 1
_ARP_IPV4 = 0x0800
ARP_REQUEST = 1
ARP_REPLY = 2


def mac_bytes(mac: str) -> bytes:
    """The six bytes of `52:54:00:…`."""
    return bytes.fromhex(mac.replace(":", ""))


def ethernet(src: str, dst: str, ethertype: int, payload: bytes) -> bytes:
    """Build a frame, filled up to the shortest that Ethernet carries."""
    frame = mac_bytes(dst) + mac_bytes(src) + struct.pack("!H", ethertype) + payload
    return frame.ljust(_SHORTEST_FRAME, b"\0")


def arp(
    src_mac: str,
    sender_mac: str,
    sender_ip: str,
    target_ip: str,
    *,
    operation: int = ARP_REQUEST,
    dst_mac: str = BROADCAST,
    target_mac: str = "00:00:00:00:00:00",
) -> bytes:
    """Build an ARP packet; a liar's `src_mac` differs from the `sender_mac` that it claims."""
    payload = (
        struct.pack("!HHBBH", _ARP_ETHERNET, _ARP_IPV4, 6, 4, operation)
        + mac_bytes(sender_mac)
        + ipaddress.IPv4Address(sender_ip).packed
        + mac_bytes(target_mac)
        + ipaddress.IPv4Address(target_ip).packed
    )
    return ethernet(src_mac, dst_mac, ETHERTYPE_ARP, payload)


def vlan(frame: bytes, vid: int) -> bytes:
    """Put an 802.1q tag into a frame."""
    return tagged(frame, _ETHERTYPE_VLAN, vid)


def tagged(frame: bytes, protocol: int, tag: int) -> bytes:
    """Put a tag of any protocol into a frame."""
    header = struct.pack("!HH", protocol, tag)
    return frame[:_ADDRESSES_LENGTH] + header + frame[_ADDRESSES_LENGTH:]

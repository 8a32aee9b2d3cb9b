# SPDX-License-Identifier: GPL-2.0-or-later
"""The promise about the frames from one tap, which every backend keeps."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from virtwarden.errors import HostError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# linux/if.h, IFNAMSIZ
_TAP = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")


@dataclass(frozen=True)
class TapFilter:
    """What the frames from one tap must keep to.

    `macs` are MAC addresses that the guest may use beside `mac`. Without `addresses` it may use any
    IP address. The limits are in frames a second; 0 means no limit.
    """

    tap: str
    mac: str
    deny_mac_spoofing: bool
    deny_arp_spoofing: bool
    deny_vlan_tags: bool
    deny_neighbour_spoofing: bool = True
    deny_dhcp_server: bool = False
    deny_router_advertisements: bool = False
    deny_link_protocols: bool = False
    broadcast_limit: int = 0
    multicast_limit: int = 0
    addresses: tuple[str, ...] = ()
    macs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check every text field, since each becomes part of a rule's text. Raises HostError."""
        object.__setattr__(self, "addresses", tuple(self.addresses))
        object.__setattr__(self, "macs", tuple(self.macs))
        if not _TAP.fullmatch(self.tap):
            raise HostError(f"{self.tap!r} is no name of a network interface")
        for mac in self.every_mac:
            if not _MAC.fullmatch(mac):
                raise HostError(f"{mac!r} is no MAC address in lower case")
        for address in self.addresses:
            try:
                ipaddress.ip_network(address, strict=False)
            except ValueError:
                raise HostError(f"{address!r} is no IP address or network") from None

    def networks(self, version: int) -> tuple[Network, ...]:
        """The addresses of one IP version, without those that lie in others."""
        found = [ipaddress.ip_network(address, strict=False) for address in self.addresses]
        return tuple(
            ipaddress.collapse_addresses(n for n in found if n.version == version)  # type: ignore[type-var]
        )

    @property
    def every_mac(self) -> tuple[str, ...]:
        """All MAC addresses that the guest may use, the NIC's own first, each once."""
        return tuple(dict.fromkeys((self.mac, *self.macs)))

    @property
    def link_locals(self) -> tuple[ipaddress.IPv6Network, ...]:
        """The link-local addresses that follow from its MAC addresses."""
        return tuple(map(_link_local, self.every_mac))


def _link_local(mac: str) -> ipaddress.IPv6Network:
    """RFC 4291, appendix A."""
    octets = bytes.fromhex(mac.replace(":", ""))
    interface = bytes([octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]])
    return ipaddress.IPv6Network((b"\xfe\x80" + bytes(6) + interface, 128))

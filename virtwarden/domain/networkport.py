# SPDX-License-Identifier: GPL-2.0-or-later
"""A NIC that libvirt is about to put on one of its networks, as the `network` hook gets it.

Reference: https://libvirt.org/formatnetworkport.html
"""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from virtwarden.domain.model import Domain, Nic, parse
from virtwarden.errors import DomainError

# <plug type='…'>, and what the NIC is then: on a bridge with its tap, or on no bridge.
_KINDS = {"network": "network", "bridge": "network", "direct": "direct", "hostdev-pci": "hostdev"}


@dataclass(frozen=True)
class NetworkPort:
    """Which domain's NIC it is, and how libvirt would attach it."""

    owner: str
    uuid: str
    nic: Nic

    @property
    def domain(self) -> Domain:
        """As much of a domain as guards need that look only at NICs."""
        return Domain(name=self.owner, uuid=self.uuid, nics=(self.nic,))


def read(untrusted_xml: bytes) -> NetworkPort:
    """A port from the hook's XML. Raises DomainError where there is none in it."""
    root = parse(untrusted_xml, "hookData")
    port = root.find("networkport")
    if port is None:
        raise DomainError("the hook's XML tells of no port of a network")
    plug, mac = port.find("plug"), port.find("mac")
    nic = Nic(
        kind=_KINDS.get(_attribute(plug, "type"), "unheard-of"),
        mac=_attribute(mac, "address"),
        bridge=_attribute(plug, "bridge"),
        network=str(root.findtext("network/name", "")),
    )
    owner, uuid = (str(port.findtext(f"owner/{what}", "")) for what in ("name", "uuid"))
    return NetworkPort(owner, uuid, nic)


def _attribute(element: etree._Element | None, name: str) -> str:
    return "" if element is None else str(element.get(name, ""))

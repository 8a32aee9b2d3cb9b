# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain's displays, as far as they are known at a step."""

from __future__ import annotations

import ipaddress

from virtwarden.domain.model import Display
from virtwarden.errors import HostError
from virtwarden.guards.base import Case, Op


def consoles_of(case: Case) -> list[Display]:
    """The VNC displays of a domain's XML, whether or not the policy switches them off."""
    return [display for display in case.domain.displays if display.kind == "vnc"]


def has_consoles(case: Case) -> bool:
    """Whether the domain has a VNC display, and keeps it."""
    return bool(consoles_of(case)) and case.rules.display == "on"


def addresses_of(case: Case, display: Display) -> list[str]:
    """Where a VNC display listens, as far as it is known.

    Just before `start` libvirt fills in the address of one of its networks, and that of qemu.conf
    where the XML names none.
    """
    is_early = case.op in (Op.PREPARE, Op.AHEAD)
    return [address for address in display.addresses if address or not is_early]


def is_name(address: str) -> bool:
    """Whether it is the name of a host, which the system must look up."""
    if address in ("", "unix"):
        return False
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return True
    return False


def looked_up(case: Case, address: str) -> tuple[str, ...]:
    """The addresses that a name has in /etc/hosts; an address stays as it is.

    Empty for a name that only name servers know: they may say something else when QEMU asks.
    """
    if not is_name(address):
        return (address,)
    try:
        found = case.facts.addresses_of(address)
    except HostError:
        return ()
    return () if found.servers else found.found


def has_port(display: Display) -> bool:
    """Whether viewers reach a display by a TCP port."""
    if display.kind not in ("vnc", "spice"):
        return False
    kinds = {listen.kind for listen in display.listens}
    return bool(kinds & {"address", "network"}) if kinds else not display.socket

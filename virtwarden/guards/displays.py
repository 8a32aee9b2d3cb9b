# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain's displays, as far as they are known at a step."""

from __future__ import annotations

from virtwarden.domain.model import Display
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


def has_port(display: Display) -> bool:
    """Whether viewers reach a display by a TCP port."""
    if display.kind not in ("vnc", "spice"):
        return False
    kinds = {listen.kind for listen in display.listens}
    return bool(kinds & {"address", "network"}) if kinds else not display.socket

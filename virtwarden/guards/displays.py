# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain's displays, as far as they are known at a step."""

from __future__ import annotations

from virtwarden.domain.model import Display
from virtwarden.guards.base import Case, Op

GUARDED = ("vnc", "spice")
"""The types of a display that viewers reach, and that virt-warden guards."""


def consoles_of(case: Case, *kinds: str) -> list[Display]:
    """The displays of a domain's XML that viewers reach, whether or not the policy keeps them."""
    return [display for display in case.domain.displays if display.kind in (kinds or GUARDED)]


def has_consoles(case: Case, *kinds: str) -> bool:
    """Whether the domain has a display that viewers reach, and keeps it."""
    return bool(consoles_of(case, *kinds)) and case.rules.display == "on"


def has_certificate(case: Case) -> bool:
    """Whether a display of the domain shows viewers a certificate."""
    if case.rules.display == "off" or case.rules.tls != "required":
        return False
    return any(map(_speaks_tls, case.domain.displays))


def _speaks_tls(display: Display) -> bool:
    """Of Unix sockets only VNC's has TLS; libvirt's own descriptors need none."""
    if display.kind not in GUARDED or listens_nowhere(display):
        return False
    return display.kind == "vnc" or has_port(display)


def listens_nowhere(display: Display) -> bool:
    """Whether a display listens nowhere: libvirt hands out descriptors of it."""
    return any(listen.kind == "none" for listen in display.listens)


def addresses_of(case: Case, display: Display) -> list[str]:
    """Where a display listens, as far as it is known.

    Just before `start` libvirt fills in the address of one of its networks, and that of qemu.conf
    where the XML names none.
    """
    is_early = case.op in (Op.PREPARE, Op.AHEAD)
    return [address for address in display.addresses if address or not is_early]


def has_port(display: Display) -> bool:
    """Whether viewers reach a display by a TCP port."""
    if display.kind not in GUARDED:
        return False
    kinds = {listen.kind for listen in display.listens}
    return bool(kinds & {"address", "network"}) if kinds else not display.socket

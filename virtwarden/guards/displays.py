# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain's displays, as far as they are known at a step."""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass

from virtwarden.domain.model import Display
from virtwarden.errors import HostError
from virtwarden.guards.base import Case, Op

_TYPES_BOUND_TO = {"dbus": ("dbus",), "spice": ("spice", "spiceport", "spicevmc")}

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


@dataclass(frozen=True)
class Default:
    """Where libvirt has a display listen whose XML leaves that to it; `setting` is qemu.conf's."""

    address: str
    setting: str = ""
    where: str = ""


def default_of(case: Case, display: Display) -> Default | None:
    """Where a display listens by libvirt's choice; None where its XML says it.

    Once libvirt has chosen, the XML does not tell who said it.
    """
    if case.op in (Op.PREPARE, Op.AHEAD):
        return _by_qemu_conf(case, display.kind) if _leaves_it_open(display) else None
    if {*display.addresses} <= {*case.rules.listen}:
        return None  # nobody asks
    default = _by_qemu_conf(case, display.kind)
    return default if default.setting and default.address in display.addresses else None


def _leaves_it_open(display: Display) -> bool:
    if not display.listens:
        return not (display.address or display.socket)
    return any(listen.kind == "address" and not listen.address for listen in display.listens)


def _by_qemu_conf(case: Case, kind: str) -> Default:
    """A socket goes before an address: libvirt's qemuProcessGraphicsSetupListen."""
    socket = case.facts.qemu_setting(f"{kind}_auto_unix_socket")
    if socket.values == ("1",):
        return Default("unix", f"{kind}_auto_unix_socket", socket.where)
    listen = case.facts.qemu_setting(f"{kind}_listen")
    if listen.values:
        return Default(listen.values[0], f"{kind}_listen", listen.where)
    return Default("127.0.0.1")


def without(case: Case, display: Display) -> str:
    """What to do to the XML, so that the display is gone and libvirt takes the rest."""
    types = _TYPES_BOUND_TO.get(display.kind, ())
    found = Counter(
        f"<{device.tag} type='{device.variant}'>"
        for device in case.domain.devices
        if device.variant in types and device.tag != "graphics"
    )
    bound = ", ".join(f"{n} {each}" if n > 1 else each for each, n in found.items())
    rest = f", and what goes with it: {bound}" if bound else ""
    return f"take out the whole <graphics type='{display.kind}'>{rest}"


def has_port(display: Display) -> bool:
    """Whether viewers reach a display by a TCP port."""
    if display.kind not in GUARDED:
        return False
    kinds = {listen.kind for listen in display.listens}
    return bool(kinds & {"address", "network"}) if kinds else not display.socket

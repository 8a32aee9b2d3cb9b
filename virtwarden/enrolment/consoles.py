# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes away the port of a console that listens on loopback alone, and puts it back.

libvirt then hands out descriptors of it (virDomainOpenGraphicsFD), and nobody else opens it.
"""

from __future__ import annotations

import ipaddress

from lxml import etree

from virtwarden.domain.model import WARDEN_NAMESPACE
from virtwarden.enrolment import tree
from virtwarden.policy import Via

_CONSOLE = f"{{{WARDEN_NAMESPACE}}}console"
_CHOSEN = "console"
_KINDS = ("spice", "vnc")
# Not passwd: everybody who may see a domain may see its metadata.
_OF_PORTS = ("port", "tlsPort", "websocket", "autoport", "listen")


def spell_out(root: etree._Element, notes: etree._Element, via: Via, chosen: Via | None) -> None:
    """Have libvirt alone show each such console where that is wanted, and note what was there.

    `chosen` is what the admin wants for this domain, whatever the policy's `via` says.
    """
    if chosen:
        notes.set(_CHOSEN, chosen)
    if (chosen or via) != "libvirt":
        return
    for display in root.iterfind("devices/graphics"):
        kind = display.get("type", "")
        if kind in _KINDS and _is_on_loopback(display):
            note = etree.SubElement(notes, _CONSOLE, type=kind)
            for name in _OF_PORTS:
                if name in display.attrib:
                    note.set(name, display.attrib.pop(name))
            formers = display.findall("listen")
            note.extend(tree.bare(former) for former in formers)
            _put_listens(display, formers, [etree.Element("listen", type="none")])


def chosen_in(notes: etree._Element | None) -> Via | None:
    """What the admin wanted for this domain when it was enrolled."""
    words: dict[str | None, Via] = {"port": "port", "libvirt": "libvirt"}
    return None if notes is None else words.get(notes.get(_CHOSEN))


def restore(root: etree._Element, notes: etree._Element) -> None:
    """Give back its port to each console that still has none."""
    for note in notes.iterfind(_CONSOLE):
        for display in root.iterfind("devices/graphics"):
            formers = display.findall("listen")
            if display.get("type") != note.get("type") or not _is_none(formers):
                continue
            for name in _OF_PORTS:
                if name in note.attrib:
                    display.set(name, note.attrib[name])
            _put_listens(display, formers, [tree.bare(each) for each in note.iterfind("listen")])


def _put_listens(
    display: etree._Element, formers: list[etree._Element], listens: list[etree._Element]
) -> None:
    if not formers:
        for at, listen in enumerate(listens):
            display.insert(at, listen)
        return
    first, *others = formers
    tree.replace(first, *listens)
    for other in others:
        tree.remove(other)


def _is_none(listens: list[etree._Element]) -> bool:
    return [each.get("type") for each in listens] == ["none"]


def _is_on_loopback(display: etree._Element) -> bool:
    """Whether it has a port on loopback, which libvirt chooses where no address is named."""
    listens = display.findall("listen")
    if not listens and display.get("socket"):
        return False
    if any(each.get("type") != "address" for each in listens):
        return False
    addresses = [each.get("address") for each in listens] or [display.get("listen")]
    return all(address is None or _is_loopback(address) for address in addresses)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"

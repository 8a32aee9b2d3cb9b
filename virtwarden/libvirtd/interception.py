# SPDX-License-Identifier: GPL-2.0-or-later
"""Enrols domains on their way to libvirt, whichever program in this process makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import libvirt

from virtwarden.domain.model import from_tree, parse
from virtwarden.enrolment import passwords
from virtwarden.enrolment.enrol import enrol_xml
from virtwarden.paths import Paths
from virtwarden.policy import Mode, Policy

Warn = Callable[[str], None]

_HERE = "qemu:///system"
# All methods of libvirt-python that start or store a domain; each takes the XML first.
_TAKING_XML = ("createXML", "createXMLWithFiles", "defineXML", "defineXMLFlags")


def enrol_all(paths: Paths, policy: Policy, warn: Warn) -> None:
    """From now on, enrol each managed domain that this process gives to the host's libvirt."""
    for name in _TAKING_XML:
        _enrol_before(paths, policy, warn, name)


def _enrol_before(paths: Paths, policy: Policy, warn: Warn, name: str) -> None:
    """Make a method of libvirt-python's connections enrol the XML that it gets."""
    plain: Callable[..., Any] = getattr(libvirt.virConnect, name)

    def enrolling(connection: libvirt.virConnect, xml: str, *more: Any, **named: Any) -> Any:
        return plain(connection, _enrolled(paths, policy, warn, connection, xml), *more, **named)

    setattr(libvirt.virConnect, name, enrolling)


def _enrolled(
    paths: Paths,
    policy: Policy,
    warn: Warn,
    connection: libvirt.virConnect,
    xml: str,
) -> str:
    if connection.getURI() != _HERE:
        warn(f"{connection.getURI()} is not this host: not enrolled")
        return xml
    name = from_tree(parse(xml.encode())).name
    if not policy.manages(name):
        return xml
    rules = policy.rules_for(name)
    weak = passwords.objection(xml.encode(), rules)
    if weak is not None and rules.mode is Mode.ENFORCING:
        raise weak
    return enrol_xml(xml.encode(), rules.user_prefix, paths, via=rules.via).decode()

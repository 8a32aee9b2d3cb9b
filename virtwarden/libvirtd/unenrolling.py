# SPDX-License-Identifier: GPL-2.0-or-later
"""Unenrols domains when an admin asks for it."""

from __future__ import annotations

from collections.abc import Callable

import libvirt

from virtwarden import recovery
from virtwarden.changes import journal
from virtwarden.enrolment.enrol import is_enrolled
from virtwarden.errors import HostError, PolicyError
from virtwarden.libvirtd.connection import inactive_xml, persistent, rests
from virtwarden.libvirtd.copies import restore
from virtwarden.paths import Paths
from virtwarden.policy import load
from virtwarden.system import users

Say = Callable[[str], None]


def unenrol(
    paths: Paths, say: Say, connection: libvirt.virConnect, domain: libvirt.virDomain
) -> str:
    """Make a domain again what it was; gives the outcome, in words that follow its name.

    Raises HostError where libvirt does not take it, or where one of its copies stays enrolled.
    """
    was_enrolled, reports = restore(connection, domain, paths)
    if reports:
        raise HostError(reports[0])
    if not was_enrolled and not _has_state(paths, domain):
        return "is not enrolled"
    if domain.isActive():
        return "is unenrolled from its next start on; unenrol it then again to remove its user"
    own = users.account_of(domain.UUIDString())
    forget(paths, say, connection, domain.UUIDString())
    user = f", its user {own.name} is removed" if own else ""
    return f"is unenrolled{user}{_warning(paths, domain.name())}"


def all_enrolled(paths: Paths, connection: libvirt.virConnect) -> list[libvirt.virDomain]:
    """The persistent domains that are enrolled, or for which virt-warden changed the host."""
    return [
        domain
        for domain in persistent(connection)
        if is_enrolled(inactive_xml(domain), paths) or _has_state(paths, domain)
    ]


def forgotten(paths: Paths, connection: libvirt.virConnect) -> list[str]:
    """The UUIDs of domains that once ran guarded and that libvirt no longer knows."""
    there = {domain.UUIDString() for domain in connection.listAllDomains()}
    return [uuid for uuid in journal.known_domains(paths) if uuid not in there]


def forget(paths: Paths, say: Say, connection: libvirt.virConnect, uuid: str) -> None:
    """Undo everything that was done for a domain that does not run; its uid stays used."""
    for report in recovery.forget(paths, uuid, lambda: rests(connection, uuid)) or ():
        say(f"left alone: {report}")


def _has_state(paths: Paths, domain: libvirt.virDomain) -> bool:
    return paths.domain_state(domain.UUIDString()).exists()


def _warning(paths: Paths, name: str) -> str:
    """A warning where the policy manages the domain: it starts enrolled or not at all."""
    try:
        policy = load(paths, store=True)
    except PolicyError:
        return ""
    if not policy.manages(name):
        return ""
    return f"; the policy ({policy.where('managed')}) still manages it: exclude it there"

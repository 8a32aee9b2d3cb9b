"""`virt-warden unenrol`: domains come out from under guard, and are again what they were."""

from __future__ import annotations

import argparse
import sys

import libvirt

from virtwarden import recovery
from virtwarden.changes import journal
from virtwarden.cli.terminal.for_each import for_each
from virtwarden.enrolment.enrol import is_enrolled
from virtwarden.errors import HostError, PolicyError, WardenError
from virtwarden.libvirtd.connection import (
    connected,
    find,
    inactive_xml,
    persistent,
    rests,
)
from virtwarden.libvirtd.kept import restore
from virtwarden.paths import Paths
from virtwarden.policy import load
from virtwarden.system import users


def arguments(parser: argparse.ArgumentParser) -> None:
    """See Command."""
    whom = parser.add_mutually_exclusive_group(required=True)
    whom.add_argument(
        "--all",
        action="store_true",
        help="all domains that are enrolled, those undefined since too",
    )
    whom.add_argument("domains", nargs="*", default=[], metavar="DOMAIN", help="by name or UUID")


def run(options: argparse.Namespace, paths: Paths) -> int:
    """See Command."""
    return unenrol(paths, options.domains, all_domains=options.all)


def unenrol(paths: Paths, names: list[str], *, all_domains: bool) -> int:
    """Make these domains, or all that are enrolled, what they were. Gives the exit code.

    A domain that was undefined, or never defined, is known by its UUID alone.
    """
    with connected() as connection:
        forgotten = _forgotten(connection, paths)

    def unenrol_one(connection: libvirt.virConnect, domain: libvirt.virDomain) -> str:
        was_enrolled, reports = restore(connection, domain, paths)
        if reports:
            raise HostError(reports[0])
        if not was_enrolled and not _has_state(paths, domain):
            return "is not enrolled"
        if domain.isActive():
            return "is unenrolled from its next start on; unenrol it then again to remove its user"
        own = users.account_of(domain.UUIDString())
        _forget(paths, connection, domain.UUIDString())
        user = f", its user {own.name} is removed" if own else ""
        return f"is unenrolled{user}{_warning(paths, domain.name())}"

    def chosen(connection: libvirt.virConnect) -> list[libvirt.virDomain]:
        if all_domains:
            return [
                d
                for d in persistent(connection)
                if is_enrolled(inactive_xml(d), paths) or _has_state(paths, d)
            ]
        return [find(connection, name) for name in names if name not in forgotten]

    failed = bool(for_each(chosen, unenrol_one))
    with connected() as connection:
        for uuid in forgotten if all_domains else [name for name in names if name in forgotten]:
            failed |= not _forget_unknown(paths, connection, uuid)
    return int(failed)


def _forget_unknown(paths: Paths, connection: libvirt.virConnect, uuid: str) -> bool:
    try:
        _forget(paths, connection, uuid)
    except WardenError as error:
        print(f"virt-warden: {uuid}: {error}", file=sys.stderr)
        return False
    print(f"{uuid}, which libvirt does not know any more, is forgotten, its user is removed")
    return True


def _forgotten(connection: libvirt.virConnect, paths: Paths) -> list[str]:
    """The domains that once ran under guard and that libvirt knows no more."""
    there = {domain.UUIDString() for domain in connection.listAllDomains()}
    return [uuid for uuid in journal.known_domains(paths) if uuid not in there]


def _has_state(paths: Paths, domain: libvirt.virDomain) -> bool:
    return paths.domain_state(domain.UUIDString()).exists()


def _forget(paths: Paths, connection: libvirt.virConnect, uuid: str) -> None:
    """Undo all that was ever done for a domain that does not run; its uid stays spent."""
    for report in recovery.forget(paths, uuid, lambda: rests(connection, uuid)) or ():
        print(f"left alone: {report}")


def _warning(paths: Paths, name: str) -> str:
    """A domain that the policy manages starts enrolled or not at all."""
    try:
        policy = load(paths)
    except PolicyError:
        return ""
    if not policy.manages(name):
        return ""
    return f"; the policy ({policy.where('managed')}) manages it all the same: take it out there"

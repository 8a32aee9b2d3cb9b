"""`virt-warden enrol` and `unenrol`: domains come under guard, and out from under it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import libvirt

from virtwarden import journal
from virtwarden.changes import Scope
from virtwarden.cli.connection import connected, define, find, inactive_xml, persistent
from virtwarden.domain import read
from virtwarden.enrolment import enrol_xml, is_enrolled, unenrol_xml
from virtwarden.errors import HostError, WardenError
from virtwarden.paths import Paths
from virtwarden.policy import Policy, load


def enrol(paths: Paths, names: list[str], *, all_domains: bool) -> int:
    """Enrol these domains, or all that the policy manages. Gives the exit code."""
    policy = load(paths)

    def enrol_one(connection: libvirt.virConnect, domain: libvirt.virDomain) -> str:
        _must_be_managed(policy, domain.name())
        former = inactive_xml(domain)
        xml = enrol_xml(former, policy.rules_for(domain.name()).user_prefix, paths)
        if read(xml) == read(former):
            return "is enrolled already"
        define(connection, xml)
        when = "from its next start on" if domain.isActive() else "it can be started"
        based = "".join(
            f"; disk {disk.target} is based on {', '.join(layer.path for layer in disk.layers)}"
            for disk in read(xml).disks
            if disk.layers
        )
        return f"is enrolled: {when}{based}"

    def chosen(connection: libvirt.virConnect) -> list[libvirt.virDomain]:
        if all_domains:
            return [d for d in persistent(connection) if policy.manages(d.name())]
        return [find(connection, name) for name in names]

    return _for_each(chosen, enrol_one)


def enrol_file(paths: Paths, file: Path) -> int:
    """Print the XML of a file, enrolled, on its way to `virsh define` or `create`."""
    policy = load(paths)
    try:
        xml = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise HostError(f"{file}: {error.strerror}") from None
    enrolled = enrol_xml(xml, policy.rules_for("").user_prefix, paths)
    _must_be_managed(policy, read(enrolled).name)
    sys.stdout.write(enrolled.decode() + "\n")
    return 0


def unenrol(paths: Paths, names: list[str], *, all_domains: bool) -> int:
    """Make these domains, or all that are enrolled, what they were. Gives the exit code."""

    def unenrol_one(connection: libvirt.virConnect, domain: libvirt.virDomain) -> str:
        xml = inactive_xml(domain)
        if is_enrolled(xml):
            define(connection, unenrol_xml(xml))
        elif not paths.domain_state(domain.UUIDString()).exists():
            return "is not enrolled"
        if domain.isActive():
            return "is unenrolled from its next start on; unenrol it then again to remove its user"
        _forget(paths, domain.UUIDString())
        return "is unenrolled, its user is removed"

    def chosen(connection: libvirt.virConnect) -> list[libvirt.virDomain]:
        if all_domains:
            return [
                d
                for d in persistent(connection)
                if is_enrolled(inactive_xml(d)) or paths.domain_state(d.UUIDString()).exists()
            ]
        return [find(connection, name) for name in names]

    return _for_each(chosen, unenrol_one)


def _must_be_managed(policy: Policy, name: str) -> None:
    if not policy.manages(name):
        raise HostError(
            f"the policy does not manage {name}",
            fix="add it to `managed` in /etc/virt-warden/policy.toml",
        )


def _forget(paths: Paths, domain: str) -> None:
    """Undo all that was ever done for a domain that does not run; its uid stays spent."""
    with journal.locked(paths, domain):
        reports = journal.undo(paths, domain, Scope.RUN)
        reports += journal.undo(paths, domain, Scope.ENROLMENT)
        paths.domain_state(domain).rmdir()
    for report in reports:
        print(f"left alone: {report}")


def _for_each(
    chosen: Callable[[libvirt.virConnect], list[libvirt.virDomain]],
    act: Callable[[libvirt.virConnect, libvirt.virDomain], str],
) -> int:
    """Do it to one domain after the other; one that fails does not keep the others from it."""
    failed = False
    with connected() as connection:
        for domain in chosen(connection):
            try:
                print(f"{domain.name()} {act(connection, domain)}")
            except WardenError as error:
                print(f"virt-warden: {domain.name()}: {error}", file=sys.stderr)
                failed = True
    return int(failed)

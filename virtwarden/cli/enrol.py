"""`virt-warden enrol`: domains come under guard."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import libvirt

from virtwarden.cli.terminal.for_each import for_each
from virtwarden.domain.model import read
from virtwarden.enrolment import passwords
from virtwarden.enrolment.enrol import enrol_xml
from virtwarden.errors import HostError
from virtwarden.libvirtd.connection import define, find, inactive_xml, persistent
from virtwarden.paths import Paths
from virtwarden.policy import Mode, Policy, load


def arguments(parser: argparse.ArgumentParser) -> None:
    """See Command."""
    whom = parser.add_mutually_exclusive_group(required=True)
    whom.add_argument("--all", action="store_true", help="all domains that the policy manages")
    whom.add_argument(
        "--xml", type=Path, metavar="FILE", help="print FILE's XML enrolled, for virsh define"
    )
    whom.add_argument("domains", nargs="*", default=[], metavar="DOMAIN", help="by name or UUID")


def run(options: argparse.Namespace, paths: Paths) -> int:
    """See Command."""
    if options.xml is not None:
        return enrol_file(paths, options.xml)
    return enrol(paths, options.domains, all_domains=options.all)


def enrol(paths: Paths, names: list[str], *, all_domains: bool) -> int:
    """Enrol these domains, or all that the policy manages. Gives the exit code."""
    policy = load(paths)

    def enrol_one(connection: libvirt.virConnect, domain: libvirt.virDomain) -> str:
        _must_be_managed(policy, domain.name())
        former = inactive_xml(domain)
        _must_have_no_weak_password(policy, former)
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

    return for_each(chosen, enrol_one)


def enrol_file(paths: Paths, file: Path) -> int:
    """Print the XML of a file, enrolled, on its way to `virsh define` or `create`."""
    policy = load(paths)
    try:
        xml = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise HostError(f"{file}: {error.strerror}") from None
    enrolled = enrol_xml(xml, policy.rules_for("").user_prefix, paths)
    _must_be_managed(policy, read(enrolled).name)
    _must_have_no_weak_password(policy, enrolled)
    sys.stdout.write(enrolled.decode() + "\n")
    return 0


def _must_be_managed(policy: Policy, name: str) -> None:
    if not policy.manages(name):
        raise HostError(
            f"the policy does not manage {name}",
            fix="add it to `managed` in /etc/virt-warden/policy.toml",
        )


def _must_have_no_weak_password(policy: Policy, xml: bytes) -> None:
    """It is refused where the mode is enforcing, else only said."""
    name = read(xml).name
    rules = policy.rules_for(name)
    error = passwords.objection(xml, rules)
    if error is None:
        return
    if rules.mode is Mode.ENFORCING:
        raise error
    print(f"virt-warden: {name}: {error}", file=sys.stderr)

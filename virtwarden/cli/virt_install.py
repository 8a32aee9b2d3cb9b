"""`virt-warden virt-install`: virt-install(1), whose domains are under guard from the first boot.

virt-install starts a new domain before libvirt keeps any XML of it (virDomainCreateXML), and keeps
another one for the boots after the installation: there is no moment at which it could be enrolled.
So what virt-install hands to libvirt is enrolled on its way there, whatever its options are.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt

from virtwarden.domain.model import from_tree, parse
from virtwarden.enrolment import passwords
from virtwarden.enrolment.enrol import enrol_xml
from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.policy import Mode, Policy, load

_PROGRAM = Path("/usr/bin/virt-install")
_HERE = "qemu:///system"
# All that libvirt-python has to start or keep a domain; each takes the XML first.
_TAKING_XML = ("createXML", "createXMLWithFiles", "defineXML", "defineXMLFlags")


def arguments(parser: argparse.ArgumentParser) -> None:
    """See Command."""
    parser.prefix_chars = ""  # every word is virt-install's, --help too
    parser.add_argument("words", nargs=argparse.REMAINDER, help="see virt-install(1)")


def run(options: argparse.Namespace, paths: Paths) -> int:
    """See Command. Ends as virt-install does."""
    if not _PROGRAM.exists():
        raise HostError(f"{_PROGRAM} is not there", fix="apt install virtinst")
    policy = load(paths)
    for name in _TAKING_XML:
        _enrol_before(paths, policy, name)
    sys.argv = [str(_PROGRAM), *options.words]
    runpy.run_path(str(_PROGRAM), run_name="__main__")
    return 0


def _enrol_before(paths: Paths, policy: Policy, name: str) -> None:
    """Have a method of libvirt-python's connections get its XML enrolled."""
    plain: Callable[..., Any] = getattr(libvirt.virConnect, name)

    def enrolling(connection: libvirt.virConnect, xml: str, *more: Any, **named: Any) -> Any:
        return plain(connection, _enrolled(paths, policy, connection, xml), *more, **named)

    setattr(libvirt.virConnect, name, enrolling)


def _enrolled(paths: Paths, policy: Policy, connection: libvirt.virConnect, xml: str) -> str:
    if connection.getURI() != _HERE:
        print(f"virt-warden: {connection.getURI()} is not this host: not enrolled", file=sys.stderr)
        return xml
    name = from_tree(parse(xml.encode())).name
    if not policy.manages(name):
        return xml
    rules = policy.rules_for(name)
    weak = passwords.objection(xml.encode(), rules)
    if weak is not None and rules.mode is Mode.ENFORCING:
        raise weak
    return enrol_xml(xml.encode(), rules.user_prefix, paths).decode()

# SPDX-License-Identifier: GPL-2.0-or-later
"""`virt-warden enrol`: domains are guarded from their next start on."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import libvirt

from virtwarden.cli.terminal.for_each import for_each
from virtwarden.cli.terminal.xmlfile import read_xml
from virtwarden.libvirtd import enrolling
from virtwarden.libvirtd.connection import find, persistent
from virtwarden.paths import Paths
from virtwarden.policy import Via, load


def arguments(parser: argparse.ArgumentParser) -> None:
    whom = parser.add_mutually_exclusive_group(required=True)
    whom.add_argument("--all", action="store_true", help="all domains that the policy manages")
    whom.add_argument(
        "--xml", type=Path, metavar="FILE", help="print FILE's XML as enrolled, for virsh define"
    )
    whom.add_argument("domains", nargs="*", default=[], metavar="DOMAIN", help="by name or UUID")
    parser.add_argument(
        "--console",
        choices=("port", "libvirt"),
        help="how viewers reach a console on loopback: at its port, or by libvirt alone;"
        " default: as the policy says (via)",
    )


def run(options: argparse.Namespace, paths: Paths) -> int:
    if options.xml is not None:
        return enrol_file(paths, options.xml, options.console)
    return enrol(paths, options.domains, options.console, all_domains=options.all)


def enrol(paths: Paths, names: list[str], via: Via | None = None, *, all_domains: bool) -> int:
    """Enrol these domains, or all that the policy manages. Gives the exit code."""
    policy = load(paths, store=True)

    def chosen(connection: libvirt.virConnect) -> list[libvirt.virDomain]:
        if all_domains:
            return [d for d in persistent(connection) if policy.manages(d.name())]
        return [find(connection, name) for name in names]

    return for_each(chosen, partial(enrolling.enrol, paths, policy, _warn, via))


def enrol_file(paths: Paths, file: Path, via: Via | None = None) -> int:
    """Print the XML of a file, enrolled, for `virsh define` or `virsh create`."""
    policy = load(paths)
    enrolled = enrolling.enrolled(paths, policy, _warn, via, read_xml(file))
    sys.stdout.write(enrolled.decode() + "\n")
    return 0


def _warn(line: str) -> None:
    print(f"virt-warden: {line}", file=sys.stderr)

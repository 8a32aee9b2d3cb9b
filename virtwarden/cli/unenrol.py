# SPDX-License-Identifier: GPL-2.0-or-later
"""`virt-warden unenrol`: domains are no longer guarded, and are again what they were."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import libvirt

from virtwarden.cli.terminal.for_each import for_each
from virtwarden.cli.terminal.xmlfile import read_xml
from virtwarden.enrolment.enrol import unenrol_xml
from virtwarden.errors import WardenError
from virtwarden.libvirtd import unenrolling
from virtwarden.libvirtd.connection import connected, find
from virtwarden.paths import Paths


def arguments(parser: argparse.ArgumentParser) -> None:
    whom = parser.add_mutually_exclusive_group(required=True)
    whom.add_argument(
        "--all",
        action="store_true",
        help="all enrolled domains, also those that were undefined since",
    )
    whom.add_argument(
        "--xml",
        type=Path,
        metavar="FILE",
        help="print FILE's XML as it was before it was enrolled, for a host without virt-warden",
    )
    whom.add_argument("domains", nargs="*", default=[], metavar="DOMAIN", help="by name or UUID")


def run(options: argparse.Namespace, paths: Paths) -> int:
    if options.xml is not None:
        return unenrol_file(paths, options.xml)
    return unenrol(paths, options.domains, all_domains=options.all)


def unenrol_file(paths: Paths, file: Path) -> int:
    """Print the XML of a file as it was before; libvirt need not know the domain."""
    sys.stdout.write(unenrol_xml(read_xml(file), paths).decode() + "\n")
    return 0


def unenrol(paths: Paths, names: list[str], *, all_domains: bool) -> int:
    """Make these domains, or all that are enrolled, what they were. Gives the exit code.

    A domain that was undefined, or never defined, is known only by its UUID.
    """
    with connected() as connection:
        forgotten = unenrolling.forgotten(paths, connection)

    def chosen(connection: libvirt.virConnect) -> list[libvirt.virDomain]:
        if all_domains:
            return unenrolling.all_enrolled(paths, connection)
        return [find(connection, name) for name in names if name not in forgotten]

    failed = bool(for_each(chosen, partial(unenrolling.unenrol, paths, print)))
    with connected() as connection:
        for uuid in forgotten if all_domains else [name for name in names if name in forgotten]:
            failed |= not _forget(paths, connection, uuid)
    return int(failed)


def _forget(paths: Paths, connection: libvirt.virConnect, uuid: str) -> bool:
    try:
        unenrolling.forget(paths, print, connection, uuid)
    except WardenError as error:
        print(f"virt-warden: {uuid}: {error}", file=sys.stderr)
        return False
    print(f"libvirt no longer has {uuid}; its state and its user are removed")
    return True

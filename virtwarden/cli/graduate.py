# SPDX-License-Identifier: GPL-2.0-or-later
"""`virt-warden graduate`: a domain that installation made permissive becomes enforcing."""

from __future__ import annotations

import argparse
import sys

from virtwarden.errors import WardenError
from virtwarden.libvirtd import graduating
from virtwarden.libvirtd.connection import connected
from virtwarden.paths import Paths
from virtwarden.words import shown


def arguments(parser: argparse.ArgumentParser) -> None:
    whom = parser.add_mutually_exclusive_group(required=True)
    whom.add_argument(
        "--all", action="store_true", help="all domains that are permissive since the installation"
    )
    whom.add_argument("domains", nargs="*", default=[], metavar="DOMAIN", help="by name or UUID")


def run(options: argparse.Namespace, paths: Paths) -> int:
    """Gives 1 where a domain stays permissive."""
    stays = False
    with connected() as connection:
        names = graduating.remaining(paths, connection) if options.all else options.domains
        for name in names:
            try:
                done = graduating.graduate(paths, _warn, connection, name)
            except WardenError as error:
                _warn(f"{shown(name)}: {error}")
                stays = True
                continue
            print(f"{shown(done.name)} {done.outcome}{':' if done.obstacles else ''}")
            for obstacle in done.obstacles:
                print(f"  - {obstacle}")
            stays |= bool(done.obstacles)
    if not names:
        print("No domain is permissive since the installation.")
    return int(stays)


def _warn(line: str) -> None:
    print(f"virt-warden: {line}", file=sys.stderr)

# SPDX-License-Identifier: GPL-2.0-or-later
"""`virt-warden package`: what the Debian package's scripts, and `make install`, call."""

from __future__ import annotations

import argparse
import sys

from virtwarden.package.installation import configure
from virtwarden.package.removal import remove
from virtwarden.paths import Paths


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    configuring = actions.add_parser("configure", help="put the hook and AppArmor lines in place")
    configuring.add_argument(
        "--first",
        action="store_true",
        help="also make those domains permissive that enforcing mode would refuse",
    )
    actions.add_parser("remove", help="unenrol every domain, and remove hook and AppArmor lines")


def run(options: argparse.Namespace, paths: Paths) -> int:
    """Gives 1 where nothing was removed, because a domain stays enrolled."""
    if options.action == "remove":
        return int(not remove(paths, print, _warn))
    configure(paths, print, _warn, first=options.first)
    return 0


def _warn(line: str) -> None:
    print(f"virt-warden: {line}", file=sys.stderr)

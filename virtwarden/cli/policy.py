# SPDX-License-Identifier: GPL-2.0-or-later
"""`virt-warden policy`: what is wrong with the policy files."""

from __future__ import annotations

import argparse
import sys

from virtwarden.paths import Paths
from virtwarden.policy import InvalidPolicy, load
from virtwarden.policy.allowances import BROAD_EXCEPTION
from virtwarden.words import shown


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("check", help="list all mistakes, one a line")


def run(options: argparse.Namespace, paths: Paths) -> int:
    """Print what is wrong, or that all is well, and what could go."""
    try:
        policy = load(paths, store=True)  # from now on this is the last good one
    except InvalidPolicy as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return 1
    for entry in policy.entries:
        exceptions = entry.settings.get("exceptions")
        if exceptions and BROAD_EXCEPTION in exceptions.value:
            print(
                f'{exceptions.origin}: "{BROAD_EXCEPTION}" opens every device that the XML of'
                f" {shown(entry.match)} names, and no more its sockets, programs and other files:"
                " write allow instead. virt-warden explain NAME prints the line"
            )
    for origin in policy.idle:
        print(
            f'{origin}: exceptions: "spice" changes nothing any more: a SPICE display is guarded as'
            " any other; remove it",
            file=sys.stderr,
        )
    print("The policy is valid. Does it fit this host and its domains: virt-warden check")
    return 0

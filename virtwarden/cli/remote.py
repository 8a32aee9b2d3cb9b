# SPDX-License-Identifier: GPL-2.0-or-later
"""`virt-warden remote`: how libvirt is managed from elsewhere, and how that is set up."""

from __future__ import annotations

import argparse
import sys

from virtwarden.audit.remote import checks
from virtwarden.audit.report import report_on, text
from virtwarden.paths import Paths
from virtwarden.policy import load
from virtwarden.remote import recipes
from virtwarden.remote.recipes import Recipe
from virtwarden.remote.setup import set_up, take_back

_RECIPES = ("ssh", "tls", "sasl")


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("check", help="check, item by item, each with its fix")
    setup = actions.add_parser("setup", help="set it up; shows the diff first, and can be undone")
    setup.add_argument("way", choices=_RECIPES)
    setup.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="NAME",
        help="the subject of a certificate that may connect, such as CN=alice; default: all issued",
    )
    setup.add_argument("--yes", action="store_true", help="do not ask")
    undo = actions.add_parser("undo", help="restore what setup changed")
    undo.add_argument("way", choices=_RECIPES)


def run(options: argparse.Namespace, paths: Paths) -> int:
    if options.action == "check":
        return _check(paths)
    if options.action == "undo":
        take_back(paths, options.way, print)
        return 0
    return _set_up(paths, options)


def _check(paths: Paths) -> int:
    report = report_on(checks(), load(paths))
    sys.stdout.write(text.render(report))
    return report.exit_code


def _set_up(paths: Paths, options: argparse.Namespace) -> int:
    recipe = _recipe(paths, options)
    for edit in recipe.edits:
        sys.stdout.write(edit.difference())
    for command in recipe.commands:
        print(f"+ {' '.join(command)}")
    if not options.yes and input("Do this? [y/N] ").strip().lower() not in ("y", "yes"):
        print("Nothing was done.")
        return 1
    kept = set_up(paths, options.way, recipe, print)
    print(
        f"Done. The former files are in {kept}; to restore: virt-warden remote undo {options.way}"
    )
    for sentence in recipe.left:
        print(f"Still to do: {sentence}")
    return 0


def _recipe(paths: Paths, options: argparse.Namespace) -> Recipe:
    if options.way == "ssh":
        return recipes.ssh()
    return {"tls": recipes.tls, "sasl": recipes.sasl}[options.way](paths, options.allow)

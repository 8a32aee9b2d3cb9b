"""`virt-warden remote`: how libvirt is managed from elsewhere, and how that is set up."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from virtwarden.audit.remote import checks
from virtwarden.audit.report import report_on, text
from virtwarden.errors import CommandError, HostError
from virtwarden.paths import Paths
from virtwarden.policy import load
from virtwarden.remote import edits, recipes
from virtwarden.remote.recipes import Recipe
from virtwarden.system.run import run as run_command

_RECIPES = ("ssh", "tls", "sasl")
_SYSTEMD = Path("/run/systemd/system")


def arguments(parser: argparse.ArgumentParser) -> None:
    """See Command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("check", help="how it stands, item by item, each with its fix")
    setup = actions.add_parser("setup", help="make it so: shown first, reversible")
    setup.add_argument("way", choices=_RECIPES)
    setup.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="NAME",
        help="whose certificate may connect, such as CN=alice; by default all that were issued",
    )
    setup.add_argument("--yes", action="store_true", help="do not ask")
    undo = actions.add_parser("undo", help="put back what setup wrote")
    undo.add_argument("way", choices=_RECIPES)


def run(options: argparse.Namespace, paths: Paths) -> int:
    """See Command."""
    if options.action == "check":
        return _check(paths)
    if options.action == "undo":
        return _undo(paths, options.way)
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
    kept = edits.write(paths, options.way, recipe.edits, recipe.undo)
    try:
        _follow(recipe.commands)
    except CommandError as error:
        raise _taken_back(paths, options.way, error) from None
    print(f"Done; what was there is kept in {kept}: virt-warden remote undo {options.way}")
    for sentence in recipe.left:
        print(f"Left for you: {sentence}")
    return 0


def _undo(paths: Paths, way: str) -> int:
    undone = edits.put_back(paths, way)
    for sentence in undone.sentences:
        print(sentence)
    _follow(undone.commands)
    if undone.left:
        raise HostError(
            f"{way} is not wholly undone; what was there before is kept in {undone.kept}",
            where=undone.left[0],
            fix=f"edit {', '.join(undone.left)} as you want it, then: rm {undone.kept}",
        )
    return 0


def _taken_back(paths: Paths, way: str, error: CommandError) -> HostError:
    """Put all back after a command failed; the error that says so."""
    commands = edits.put_back(paths, way).commands
    what = f"{way} is not set up, the files are as they were: {error.what}"
    try:
        _follow(commands)
    except CommandError as another:
        # What failed before, such as the check of all of sshd's files, fails again.
        if another.what != error.what:
            what += f"; and then {another.what}"
    return HostError(what, fix=f"mend that, then again: virt-warden remote setup {way}")


def _recipe(paths: Paths, options: argparse.Namespace) -> Recipe:
    if options.way == "ssh":
        return recipes.ssh()
    return {"tls": recipes.tls, "sasl": recipes.sasl}[options.way](paths, options.allow)


def _follow(commands: tuple[tuple[str, ...], ...]) -> None:
    for command in commands:
        if command[0].endswith("systemctl") and not _SYSTEMD.exists():
            print(f"systemd does not run here; do what this does: {' '.join(command)}")
        else:
            run_command(*command)

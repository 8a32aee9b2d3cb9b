# SPDX-License-Identifier: GPL-2.0-or-later
"""Follows a recipe, and undoes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from virtwarden.errors import CommandError, HostError
from virtwarden.paths import Paths
from virtwarden.remote import edits
from virtwarden.remote.edits import Commands, Undone
from virtwarden.remote.recipes import Recipe
from virtwarden.system.run import run

_SYSTEMD = Path("/run/systemd/system")


def set_up(paths: Paths, way: str, recipe: Recipe, say: Callable[[str], None]) -> Path:
    """Write the recipe's files and apply them. Gives the file that keeps what was there.

    Raises HostError, with everything as it was before, where a command fails.
    """
    kept = edits.write(paths, way, recipe.edits, recipe.undo)
    try:
        _follow(recipe.commands, say)
    except CommandError as error:
        raise _taken_back(paths, way, error, say) from None
    return kept


def take_back(paths: Paths, way: str, say: Callable[[str], None]) -> None:
    """Put back what was there. Raises HostError where some of it was edited since."""
    undone: Undone = edits.put_back(paths, way)
    for sentence in undone.sentences:
        say(sentence)
    _follow(undone.commands, say)
    if undone.left:
        raise HostError(
            f"{way} is undone only in part; the former files are in {undone.record}",
            where=undone.left[0],
            fix=f"edit {', '.join(undone.left)} as you want it, then: rm {undone.record}",
        )


def _taken_back(
    paths: Paths, way: str, error: CommandError, say: Callable[[str], None]
) -> HostError:
    """Put everything back after a command failed, and give the error that says so."""
    commands = edits.put_back(paths, way).commands
    what = f"{way} is not set up, no file was changed: {error.what}"
    try:
        _follow(commands, say)
    except CommandError as another:
        # What failed before, such as the check of all of sshd's files, fails again.
        if another.what != error.what:
            what += f"; and then {another.what}"
    return HostError(what, fix=f"fix that, then again: virt-warden remote setup {way}")


def _follow(commands: Commands, say: Callable[[str], None]) -> None:
    for command in commands:
        if command[0].endswith("systemctl") and not _SYSTEMD.exists():
            say(f"systemd does not run here; do what this does: {' '.join(command)}")
        else:
            run(*command)

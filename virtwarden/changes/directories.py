# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes to directories in which libvirt, as root, follows names."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from virtwarden.changes.access import give, set_mode
from virtwarden.changes.base import Before, Change, Scope
from virtwarden.paths import Paths
from virtwarden.system import files, users


@dataclass(frozen=True)
class TakeDirectory(Change):
    """Give a directory of libvirt's own to root, so that no other user renames what is in it.

    libvirt gives it to its own user each time that it starts, or to the domain's user at a start,
    and root makes all that is in it.
    """

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    path: str
    device: int
    number: int
    awaited: str = ""
    """The id of a domain for which libvirt is about to make something in it: see ClearWay."""

    def describe(self) -> str:
        return f"give the directory {self.path} to root until libvirt starts again"

    def capture(self, paths: Paths) -> Before:
        return {}

    def apply(self, paths: Paths, before: Before) -> None:
        with files.held(self.path, self.device, self.number) as handle:
            _note_owner(paths, os.fstat(handle).st_uid)
            # The owner first: until then the former owner can set the mode.
            give(handle, self.path, 0, os.fstat(handle).st_gid)
            mode = stat.S_IMODE(os.fstat(handle).st_mode)
            set_mode(handle, self.path, mode & ~(stat.S_IWGRP | stat.S_IWOTH))
            if self.awaited:
                _clear(files.by_descriptor(handle), self.awaited)

    def undo(self, paths: Paths, before: Before) -> str:
        """Other domains may run: libvirt itself puts its owner back when it starts."""
        return ""


def libvirts_user(paths: Paths) -> int | None:
    """The uid that libvirt gives its directories to; None where none was taken since the boot."""
    noted = files.read_if_there(paths.libvirts_user)
    return int(noted) if noted.isdigit() else None


def _note_owner(paths: Paths, uid: int) -> None:
    # A domain's own directory is its user's.
    if uid != 0 and libvirts_user(paths) != uid and not users.domain_of(uid):
        files.passable_directory(paths.run)
        files.write_atomically(paths.libvirts_user, str(uid).encode(), 0o600)


@dataclass(frozen=True)
class ClearWay(Change):
    """Remove what lies where libvirt is about to make a domain's directories.

    libvirt takes what is there, follows a symlink, and gives it to the domain's user. It can be
    left of a host that crashed, or put there by whoever had the directory before root took it.
    `number` is the id that libvirt has just chosen, so that it is no running domain's.
    """

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    number: str
    directories: tuple[str, ...]

    def __post_init__(self) -> None:
        """Make a tuple from the list that a journal gives."""
        object.__setattr__(self, "directories", tuple(self.directories))

    def describe(self) -> str:
        return f"remove what is left of a domain with the id {self.number} in libvirt's directories"

    def capture(self, paths: Paths) -> Before:
        return {}

    def apply(self, paths: Paths, before: Before) -> None:
        for directory in self.directories:
            _clear(Path(directory), self.number)

    def undo(self, paths: Paths, before: Before) -> str:
        """It was nobody's."""
        return ""


def _clear(directory: Path, number: str) -> None:
    import shutil  # hardly any start needs it

    if not number.isdecimal():
        return
    for pattern in (f"domain-{number}-*", f"{number}-*"):
        for found in directory.glob(pattern):
            if found.is_dir() and not found.is_symlink():
                shutil.rmtree(found)
            else:
                found.unlink(missing_ok=True)

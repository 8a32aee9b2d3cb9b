# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes to directories in which libvirt, as root, follows names."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import ClassVar

from virtwarden.changes.access import give, set_mode
from virtwarden.changes.base import Before, Change, Scope
from virtwarden.paths import Paths
from virtwarden.system import files


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

    def undo(self, paths: Paths, before: Before) -> str:
        """Other domains may run: libvirt itself puts its owner back when it starts."""
        return ""


def libvirts_user(paths: Paths) -> int | None:
    """The uid that libvirt gives its directories to; None where none was taken since the boot."""
    noted = files.read_if_there(paths.libvirts_user)
    return int(noted) if noted.isdigit() else None


def _note_owner(paths: Paths, uid: int) -> None:
    if uid != 0 and libvirts_user(paths) != uid:
        files.passable_directory(paths.run)
        files.write_atomically(paths.libvirts_user, str(uid).encode(), 0o600)

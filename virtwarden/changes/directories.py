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
from virtwarden.errors import HostError
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
    shared: bool = False
    """Helper programs of several users make sockets in it. Each renames and removes its own alone,
    as in /tmp; its group is still libvirt's."""

    def describe(self) -> str:
        if self.shared:
            return (
                f"give the directory {self.path} to root, and have users change only what is theirs"
                " in it, until libvirt starts again"
            )
        return f"give the directory {self.path} to root until libvirt starts again"

    def capture(self, paths: Paths) -> Before:
        return {}

    def apply(self, paths: Paths, before: Before) -> None:
        with files.held(self.path, self.device, self.number) as handle:
            _note_owner(paths, os.fstat(handle).st_uid)
            # The owner first: until then the former owner can set the mode.
            give(handle, self.path, 0, os.fstat(handle).st_gid)
            mode = stat.S_IMODE(os.fstat(handle).st_mode)
            if self.shared:
                mode = (mode | stat.S_ISVTX | stat.S_IWGRP) & ~stat.S_IWOTH
            else:
                mode &= ~(stat.S_IWGRP | stat.S_IWOTH)
            set_mode(handle, self.path, mode)
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
class RequireSocketOf(Change):
    """Alter nothing; fail where a socket does not belong to the owner of the state of a TPM.

    This comes once nobody else can rename it: before, libvirt's own user could.
    """

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    path: str
    states: tuple[str, ...]
    """Where the state may be; libvirt has given it to the user that swtpm runs as."""

    def __post_init__(self) -> None:
        """Make a tuple from the list that a journal gives."""
        object.__setattr__(self, "states", tuple(self.states))

    def describe(self) -> str:
        return f"see that {self.path} is a socket of the TPM's own user"

    def capture(self, paths: Paths) -> Before:
        return {}

    def apply(self, paths: Paths, before: Before) -> None:
        """Raises HostError where it is another's, or no socket."""
        users = {found.st_uid for found in map(_found, self.states) if found}
        socket = _found(self.path)
        if users and (
            not socket or not stat.S_ISSOCK(socket.st_mode) or socket.st_uid not in users
        ):
            raise HostError(
                f"{self.path} is not its TPM's socket: another process has put something there",
                fix="start it again; if it is so again, a VM without virt-warden may have escaped:"
                " stop those, one after the other",
            )

    def undo(self, paths: Paths, before: Before) -> str:
        return ""


def _found(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


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

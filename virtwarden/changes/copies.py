# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain's own copy of a file that several domains boot."""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from virtwarden.changes.access import user_named
from virtwarden.changes.base import Before, Change, Scope
from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.system import files, filesystems
from virtwarden.words import shown

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Another file that shares the first one's blocks; ioctl_ficlone(2). Python 3.14 has it in fcntl.
_FICLONE = 0x40049409
_PIECE_BYTES = 1 << 30


@dataclass(frozen=True)
class CopyFile(Change):
    """Copy a file into a directory of the domain's; only its user can read the copy."""

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = True

    original: str
    device: int
    number: int
    path: str
    user: str

    def describe(self) -> str:
        return f"copy {self.original} to {self.path}, readable only by {self.user}"

    def capture(self, paths: Paths) -> Before:
        return {}

    def apply(self, paths: Paths, before: Before) -> None:
        """Raises HostError where the original is another file by now, or the disk is full."""
        account = user_named(self.user)
        copy = Path(self.path)
        with files.held(self.original, self.device, self.number) as original:
            if not stat.S_ISREG(os.fstat(original).st_mode):
                raise HostError(f"{self.original} is not a regular file")
            _enclose(copy.parent, account.gid)
            copy.unlink(missing_ok=True)
            source = _opened(original, self.original)
            try:
                _copy(source, copy, account.uid, account.gid)
            except OSError as error:
                raise HostError(
                    f"{self.original} cannot be copied to {self.path}: {error.strerror}",
                    fix=f"df -h {shown(str(paths.boot_files))}, make room, and start it again",
                ) from None
            finally:
                os.close(source)

    def undo(self, paths: Paths, before: Before) -> str:
        copy = Path(self.path)
        with suppress(FileNotFoundError):
            copy.unlink()
        with suppress(OSError):  # it has another copy in it, or it is gone
            copy.parent.rmdir()
        return ""


def _enclose(directory: Path, gid: int) -> None:
    """Make the domain's directory, which only root writes and only the domain's user enters."""
    files.private_directory(directory.parent.parent)
    files.passable_directory(directory.parent)
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    os.chown(directory, 0, gid)
    directory.chmod(0o710)


def _opened(original: int, path: str) -> int:
    try:
        return os.open(files.by_descriptor(original), os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise filesystems.unreadable(path, error) from None


def _copy(source: int, copy: Path, uid: int, gid: int) -> None:
    target = os.open(copy, _NEW, 0o400)
    try:
        _copy_content(source, target)
        os.fchown(target, uid, gid)
    finally:
        os.close(target)


def _copy_content(source: int, target: int) -> None:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:  # this file system shares no blocks, or it is another one
        while os.sendfile(target, source, None, _PIECE_BYTES):
            pass

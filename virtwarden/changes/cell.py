# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes in a domain's cell directory, which its wrapper and its QEMU read."""

from __future__ import annotations

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
from virtwarden.pki import consoles
from virtwarden.system import files


@dataclass(frozen=True)
class MakeDirectory(Change):
    """Make a directory that belongs to root and that one domain's user may read."""

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    path: str
    user: str

    def describe(self) -> str:
        return f"make directory {self.path}, readable only by {self.user}"

    def capture(self, paths: Paths) -> Before:
        return {"existed": Path(self.path).exists()}

    def apply(self, paths: Paths, before: Before) -> None:
        account = user_named(self.user)
        files.passable_directory(paths.run)
        directory = Path(self.path)
        with suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0:
            raise HostError(
                f"{directory} is not a directory that root owns",
                fix=f"rm -r {directory}, start again",
            )
        os.chown(directory, 0, account.gid)
        directory.chmod(0o750)

    def undo(self, paths: Paths, before: Before) -> str:
        if before["existed"]:
            return ""
        try:
            Path(self.path).rmdir()
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"{self.path} is left: {error.strerror}"
        return ""


@dataclass(frozen=True)
class WriteFile(Change):
    """Write a file that belongs to root and that one domain's user may read, or nobody, or all.

    It contains no secret: the journal stores its content.
    """

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    path: str
    content: str
    user: str
    everybody: bool = False
    """Everybody may read it; the directory is made where it is missing."""

    def describe(self) -> str:
        if self.everybody:
            return f"write {self.path} ({len(self.content)} bytes), for everybody to read"
        reader = self.user or "root"
        return f"write {self.path} ({len(self.content)} bytes), readable only by {reader}"

    def capture(self, paths: Paths) -> Before:
        return {}

    def apply(self, paths: Paths, before: Before) -> None:
        gid = user_named(self.user).gid if self.user else 0
        if self.everybody:
            files.passable_directory(paths.run)
            files.passable_directory(Path(self.path).parent)
        mode = 0o644 if self.everybody else 0o640
        files.write_atomically(Path(self.path), self.content.encode(), mode, gid=gid)

    def undo(self, paths: Paths, before: Before) -> str:
        files.discard(Path(self.path))
        return ""


@dataclass(frozen=True)
class IssueCertificate(Change):
    """Issue a console certificate for one start of one domain; only its user can read the key.

    `directory` is what QEMU's tls-creds-x509 object expects: ca-cert.pem, server-cert.pem and
    server-key.pem (qemu(1), -object tls-creds-x509).
    """

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    directory: str
    user: str
    common_name: str
    names: tuple[str, ...]
    days: int = consoles.DAYS

    @property
    def is_whole(self) -> bool:
        """The last of its files tells."""
        return (Path(self.directory) / consoles.LAST_FILE).exists()

    def describe(self) -> str:
        lasts = f", for {self.days} days" if self.days != consoles.DAYS else ""
        return (
            f"issue a console certificate for {', '.join(self.names)} into {self.directory},"
            f" its key readable only by {self.user}{lasts}"
        )

    def capture(self, paths: Paths) -> Before:
        return {}

    def apply(self, paths: Paths, before: Before) -> None:
        gid = user_named(self.user).gid
        directory = Path(self.directory)
        with suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        os.chown(directory, 0, gid)
        directory.chmod(0o750)
        issued = consoles.issue(paths, self.common_name, self.names, self.days)
        # If this replaces former files and is interrupted, the mixture must not look complete.
        files.discard(directory / consoles.LAST_FILE)
        for name, content in issued.items():
            files.write_atomically(directory / name, content, 0o640, gid=gid)

    def undo(self, paths: Paths, before: Before) -> str:
        directory = Path(self.directory)
        for name in consoles.FILES:
            files.discard(directory / name)
        with suppress(FileNotFoundError):
            directory.rmdir()
        return ""

# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes that adopt a start: what libvirt gave to its own user becomes the domain's user's.

They come after libvirt has given everything away and before QEMU opens any of it. Undone is what
was changed at `prepare`: its records have what was there before libvirt came.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from virtwarden.changes.access import give, set_mode, user_named
from virtwarden.changes.base import Before, Change, Scope
from virtwarden.changes.directories import libvirts_user
from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.system import acl, files, namespaces, users

_PRIVATE_MODE = 0o600


@dataclass(frozen=True)
class Regain(Change):
    """Give a file to the domain's user again, or to root one that several domains use.

    RequireUnopened comes after it: a process of libvirt's own user could have opened the file while
    it belonged to that user.
    """

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    path: str
    device: int
    number: int
    user: str
    writable: bool = False
    """Several domains write it, each by its entry in the ACL."""

    def describe(self) -> str:
        return f"give {self.path} to {self.user or 'root'} once libvirt has given it away"

    def capture(self, paths: Paths) -> Before:
        return {}

    def apply(self, paths: Paths, before: Before) -> None:
        with files.held(self.path, self.device, self.number) as handle:
            if self.user:
                account = user_named(self.user)
                give(handle, self.path, account.uid, account.gid)
                set_mode(handle, self.path, _PRIVATE_MODE)
            else:
                with files.locked(paths.shared):
                    give(handle, self.path, 0, 0)
                    if not self.writable:
                        acl.deny_writing(handle)

    def undo(self, paths: Paths, before: Before) -> str:
        """SetAccess and LockShared have what it was like before all."""
        return ""


@dataclass(frozen=True)
class GiveAllowed(Change):
    """Give the domain's user what it has of the host by the policy, such as a device or a pipe.

    Only what libvirt has given to its own user: the rest nobody gives to an enrolled one either.
    """

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    path: str
    device: int
    number: int
    user: str

    def describe(self) -> str:
        return f"give {self.path} to {self.user} once libvirt has given it away"

    def capture(self, paths: Paths) -> Before:
        return {}

    def apply(self, paths: Paths, before: Before) -> None:
        account = user_named(self.user)
        with files.held(self.path, self.device, self.number) as handle:
            owner = os.fstat(handle).st_uid
            if owner != 0 and owner == libvirts_user(paths):
                give(handle, self.path, account.uid, account.gid)

    def undo(self, paths: Paths, before: Before) -> str:
        """libvirt gives it back when the domain stops, as it would have without this."""
        return ""


@dataclass(frozen=True)
class HideProgram(Change):
    """VMs' users may execute QEMU and not read it: an entry of their group in its program's ACL.

    The user namespace of an adopted QEMU belongs to libvirt's own user, who made it: that user may
    do there what it likes, such as trace each process (user_namespaces(7)). But the kernel counts
    the memory of a process that executes what it may not read among those of the first user
    namespace, which is root's (would_dump in fs/exec.c), and lets nobody but root in (ptrace(2)).
    """

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    path: str
    device: int
    number: int
    group: str

    def describe(self) -> str:
        return f"let the group {self.group} execute {self.path}, and not read it"

    def capture(self, paths: Paths) -> Before:
        return {}

    def apply(self, paths: Paths, before: Before) -> None:
        gid = users.group_id(self.group)
        if gid is None:
            raise HostError(f"there is no group {self.group}", fix=f"groupadd -r {self.group}")
        with (
            files.locked(paths.shared),
            files.held(self.path, self.device, self.number) as handle,
        ):
            try:
                acl.let_only_execute(handle, gid)
            except OSError as error:
                raise HostError(
                    f"{self.path} cannot have an ACL, which keeps other processes of libvirt's user"
                    f" out of QEMU's memory: {error.strerror}",
                    fix=f"enrol the domain; or see its file system: findmnt -T {self.path}",
                ) from None

    def undo(self, paths: Paths, before: Before) -> str:
        """It stays until virt-warden is removed: libvirt asks a QEMU that was altered anew."""
        return ""


@dataclass(frozen=True)
class GiveMade(Change):
    """Give the domain's user what libvirt made for this run: its directories, keys and sockets.

    `short_name` is libvirt's own for a running domain (virDomainDefGetShortName): its number and
    the first letters of its name.
    """

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    short_name: str
    user: str

    def describe(self) -> str:
        return f"give {self.user} what libvirt made for {self.short_name}"

    def capture(self, paths: Paths) -> Before:
        return {}

    def apply(self, paths: Paths, before: Before) -> None:
        account = user_named(self.user)
        for place in self._places(paths):
            _give_tree(place, account)

    def _places(self, paths: Paths) -> Iterator[Path]:
        for directory in _parents(paths):
            with suppress(FileNotFoundError, NotADirectoryError):
                for entry in directory.iterdir():
                    name = entry.name.removeprefix("domain-")
                    if name == self.short_name or name.startswith(f"{self.short_name}-"):
                        yield entry

    def undo(self, paths: Paths, before: Before) -> str:
        """libvirt removes all of it when the domain stops."""
        return ""


def _parents(paths: Paths) -> Iterator[Path]:
    """In which directories libvirt makes a running domain's own; qemu_conf.c, qemu_domain.c."""
    for top in (paths.libvirt_state, paths.libvirt_run):
        yield top
        yield top / "channel"
        yield top / "channel/target"
        yield top / "ram"
    for helper in ("dbus", "passt", "slirp", "swtpm"):
        yield paths.libvirt_run / helper
    yield from Path("/dev").glob("hugepages*/libvirt/qemu")


def _give_tree(top: Path, account: users.Account) -> None:
    """A directory before what is in it: from then on only its new owner changes what is there."""
    parent = os.open(top.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _give_entry(top.name, parent, account)
        if not stat.S_ISDIR(os.lstat(top.name, dir_fd=parent).st_mode):
            return
        for _, directories, others, handle in os.fwalk(top.name, dir_fd=parent):
            for name in (*directories, *others):
                _give_entry(name, handle, account)
    finally:
        os.close(parent)


def _give_entry(name: str, at: int, account: users.Account) -> None:
    """Give what belongs to libvirt's own user; what else is there is somebody else's business."""
    found = os.stat(name, dir_fd=at, follow_symlinks=False)
    is_link = stat.S_ISLNK(found.st_mode)
    if is_link or (found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode)):
        return
    if found.st_uid != 0 and not users.domain_of(found.st_uid):
        os.chown(name, account.uid, account.gid, dir_fd=at, follow_symlinks=False)


@dataclass(frozen=True)
class GiveNodes(Change):
    """Give the domain's user the device nodes that libvirt made for its QEMU alone.

    libvirt gives QEMU a /dev of its own (qemu.conf, `namespaces`); the host's nodes stay as they
    are. Where it does not, there is nothing to give.
    """

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    pid: int
    user: str

    def describe(self) -> str:
        return f"give {self.user} the device nodes of process {self.pid}"

    def capture(self, paths: Paths) -> Before:
        return {}

    def apply(self, paths: Paths, before: Before) -> None:
        account = user_named(self.user)
        its = Path(f"/proc/{self.pid}/root/dev")
        own = its.stat().st_dev
        if own == Path("/dev").stat().st_dev:
            return
        for _, directories, others, handle in os.fwalk(its):
            # What is mounted below is the host's own, such as /dev/pts.
            if os.fstat(handle).st_dev != own:
                directories.clear()
                continue
            for name in others:
                mode = os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode
                if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                    _give_entry(name, handle, account)

    def undo(self, paths: Paths, before: Before) -> str:
        """They end with QEMU."""
        return ""


@dataclass(frozen=True)
class MapIds(Change):
    """Let a process, in its own user namespace, become the domain's user; user_namespaces(7)."""

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    pid: int
    user: str

    def describe(self) -> str:
        return f"let process {self.pid} become {self.user}"

    def capture(self, paths: Paths) -> Before:
        return {}

    def apply(self, paths: Paths, before: Before) -> None:
        account = user_named(self.user)
        namespaces.map_ids(self.pid, account.uid, (account.gid, *users.groups_of(account)))

    def undo(self, paths: Paths, before: Before) -> str:
        """It ends with the process."""
        return ""

# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes to the owner, mode and ACL of a file that only one domain uses."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import ClassVar

from virtwarden.changes.accounts import was_ever_a_vms
from virtwarden.changes.base import Before, Change, Scope
from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.system import acl, files, filesystems, users
from virtwarden.words import shown

_LETTERS = ((4, "r"), (2, "w"), (1, "x"))


def user_named(name: str) -> users.Account:
    """The user that a change names. Raises HostError where there is none."""
    account = users.account(name)
    if account is None:
        raise HostError(f"there is no user {name}", fix="virt-warden recover, then start again")
    return account


def give(handle: int, path: str, uid: int, gid: int) -> None:
    """Give an open file to this uid and gid.

    Raises HostError where the file system refuses that, or says that it did and did not.
    """
    if _owners(handle) == (uid, gid):
        return
    try:
        os.chown(files.by_descriptor(handle), uid, gid)
    except OSError as error:
        raise _unable(path, f"cannot be given to uid {uid}: {error.strerror}") from None
    if _owners(handle) != (uid, gid):
        raise _unable(path, f"still belongs to uid {_owners(handle)[0]} after it was given away")


def _owners(handle: int) -> tuple[int, int]:
    found = os.fstat(handle)
    return found.st_uid, found.st_gid


def former(paths: Paths, handle: int, own: int = -1) -> Before:
    """What a file is given back as: `uid`, `gid`, `mode`, and its ACL as `acl_text`.

    Root's, where another VM's user kept it, even one that is removed. Of a file that a VM's user
    kept, nobody but the owner gets the rights that this user may have given away.
    """
    found = os.fstat(handle)
    owner = {"uid": found.st_uid, "gid": found.st_gid}
    mode = stat.S_IMODE(found.st_mode)
    if not was_ever_a_vms(paths, found.st_uid):
        return {**owner, "mode": mode, "acl_text": acl.text(handle)}
    if found.st_uid != own:
        owner = {"uid": 0, "gid": 0}
    return {**owner, "mode": mode & stat.S_IRWXU, "acl_text": ""}


def drop_acl(handle: int, before: Before) -> None:
    """Take the ACL from an open file that has none in `before`: a VM's user gave it."""
    if before.get("acl_text") == "":
        acl.restore(handle, "")


def set_mode(handle: int, path: str, mode: int) -> None:
    """Set the mode of an open file. Raises HostError as `give` does."""
    if stat.S_IMODE(os.fstat(handle).st_mode) == mode:
        return
    try:
        files.by_descriptor(handle).chmod(mode)
    except OSError as error:
        raise _unable(path, f"cannot have mode {mode:04o}: {error.strerror}") from None
    now = stat.S_IMODE(os.fstat(handle).st_mode)
    if now != mode:
        raise _unable(path, f"still has mode {now:04o} after it was set to {mode:04o}")


def put_back(handle: int, path: str, before: Before) -> None:
    """Give an open file the `uid`, `gid` and `mode`, and the `acl_text` if there is one, of before.

    The owner first: until then the old owner can still set mode and ACL. Raises HostError as `give`
    does, and OSError.
    """
    give(handle, path, before["uid"], before["gid"])
    former_acl = before.get("acl_text")  # virt-warden 0.1.0 did not write it
    if former_acl is not None and former_acl != acl.text(handle):
        acl.restore(handle, former_acl)
    set_mode(handle, path, before["mode"])


def _unable(path: str, why: str) -> HostError:
    return HostError(
        f"{path} {why}{filesystems.of_kind(path)}",
        fix=f"see its file system: findmnt -T {shown(path)}; {filesystems.ways_out(path)}",
    )


@dataclass(frozen=True)
class SetAccess(Change):
    """Give one file to the domain's user, with this mode."""

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = True

    path: str
    device: int
    number: int
    user: str
    mode: int

    def describe(self) -> str:
        return f"give {self.path} to {self.user}:{self.user}, mode {self.mode:04o}"

    def capture(self, paths: Paths) -> Before:
        account = user_named(self.user)
        with files.held(self.path, self.device, self.number) as handle:
            before = former(paths, handle, account.uid)
        return {
            **before,
            "acl": bool(before["acl_text"]),
            "given_to": account.uid,
            "boot": files.boot_id(),
        }

    def apply(self, paths: Paths, before: Before) -> None:
        account = user_named(self.user)
        with files.held(self.path, self.device, self.number) as handle:
            give(handle, self.path, account.uid, account.gid)
            drop_acl(handle, before)
            set_mode(handle, self.path, self.mode)

    def undo(self, paths: Paths, before: Before) -> str:
        try:
            with files.held(self.path, self.device, self.number, before["boot"]) as handle:
                return self._give_back(handle, before)
        except HostError as gone:
            return f"{gone.what}: its owner and mode are not changed"

    def _give_back(self, handle: int, before: Before) -> str:
        found = os.fstat(handle)
        # libvirt gives an image back to the owner that it remembers, or to root.
        if found.st_uid not in (before["given_to"], before["uid"], 0):
            return f"{self.path} was given to uid {found.st_uid} meanwhile: not changed"
        try:
            return self._restore(handle, stat.S_IMODE(found.st_mode), before)
        except (HostError, OSError) as error:
            # What this file system does not let root restore must not block the next start.
            return f"{self.path} has not all of its former owner, mode and ACL: {error}"

    def _restore(self, handle: int, mode: int, before: Before) -> str:
        now = acl.text(handle)
        former = before.get("acl_text", now if before["acl"] else "")
        put_back(handle, self.path, {**before, "acl_text": former})
        if acl.named(now) != acl.named(former):
            what = "its former ACL is restored" if former else "the ACL is removed"
            return f"{self.path} was given an ACL by {self.user}; {what}"
        if mode not in (self.mode, before["mode"]):
            return (
                f"{self.path} was given mode {mode:04o} by {self.user}; its former mode is restored"
            )
        return ""


@dataclass(frozen=True)
class GrantAccess(Change):
    """An entry for the domain's user in the ACL of a file or directory; acl(5).

    An ACL is read and written as a whole, and domains that start at once share directories. So
    each takes a lock, or one would delete the other's entry.
    """

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = True

    path: str
    device: int
    number: int
    user: str
    permissions: int

    def describe(self) -> str:
        letters = "".join(letter for bit, letter in _LETTERS if self.permissions & bit)
        return f"give {self.user} an ACL entry on {self.path}: {letters}"

    def capture(self, paths: Paths) -> Before:
        account = user_named(self.user)
        with files.held(self.path, self.device, self.number) as handle:
            return {
                "permissions": acl.permissions(handle, account.uid),
                "uid": account.uid,
                "boot": files.boot_id(),
            }

    def apply(self, paths: Paths, before: Before) -> None:
        with (
            files.locked(paths.shared),
            files.held(self.path, self.device, self.number) as handle,
        ):
            try:
                acl.grant(handle, before["uid"], self._granted(before))
            except OSError as error:
                raise self._without_acl(str(error.strerror)) from None

    def obstacle(self) -> HostError | None:
        """Why the entry cannot be made, as far as the file system tells without a try."""
        with files.held(self.path, self.device, self.number) as handle:
            if acl.can_be_set(handle):
                return None
        return self._without_acl("its file system has none, or is mounted read-only")

    def _without_acl(self, reason: str) -> HostError:
        return HostError(
            f"{self.path} cannot have an ACL, by which its user could open it: {reason}"
            f"{filesystems.of_kind(self.path)}",
            fix=f"see its file system: findmnt -T {shown(self.path)}; mount it read-write,"
            " move the file to one with ACLs (ext4, xfs, btrfs), or let everybody read it:"
            f" chmod o+r {shown(self.path)}",
        )

    def undo(self, paths: Paths, before: Before) -> str:
        try:
            with (
                files.locked(paths.shared),
                files.held(self.path, self.device, self.number, before["boot"]) as handle,
            ):
                return self._take_back(handle, before)
        except HostError as gone:
            return f"{gone.what}: its ACL is not changed"
        except OSError as error:  # what its file system refuses must not block the next start
            return f"{self.path} keeps the ACL entry of uid {before['uid']}: {error.strerror}"

    def _take_back(self, handle: int, before: Before) -> str:
        uid, former = before["uid"], before["permissions"]
        now = acl.permissions(handle, uid)
        if now is None or now == former:
            return ""
        if now != self._granted(before):
            return f"the ACL entry of uid {uid} on {self.path} was changed meanwhile: it stays"
        if former is None:
            acl.revoke(handle, uid)
        else:
            acl.grant(handle, uid, former)
        return ""

    def _granted(self, before: Before) -> int:
        return self.permissions | (before["permissions"] or 0)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes to the host's users and their processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from virtwarden import log
from virtwarden.changes.base import Before, Change, Scope
from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.system import users
from virtwarden.system.ledger import Ledger


def ledger(paths: Paths) -> Ledger:
    """The ledger of used uids; the log tells when one of its two files had lost entries."""
    return Ledger(paths.ledger, paths.ledger_copy, _log_restored)


def was_ever_a_vms(paths: Paths, uid: int) -> bool:
    """Whether this uid is a domain's user's, or was one's that is removed."""
    return uid != 0 and (bool(users.domain_of(uid)) or ledger(paths).has(uid))


def _log_restored(what: str) -> None:
    log.event(log.Level.ERROR, "ledger-restored", reason=what)


@dataclass(frozen=True)
class CreateUser(Change):
    """Create a domain's user and group, with a uid that was never used before."""

    scope: ClassVar[Scope] = Scope.ENROLMENT
    durable: ClassVar[bool] = True

    name: str
    domain: str
    uid_range: tuple[int, int]
    groups: tuple[str, ...]

    def describe(self) -> str:
        lowest, highest = self.uid_range
        return (
            f"create user and group {self.name} (a uid of {lowest} to {highest} that was never"
            f" used, in {', '.join(self.groups) or 'no other group'}, no login, no home)"
        )

    def capture(self, paths: Paths) -> Before:
        """Takes the uid for good, before anybody uses it."""
        there = users.account(self.name)
        if there is not None and there.domain == self.domain:
            return {"uid": there.uid}
        return {"uid": ledger(paths).take(self.uid_range, self.name, self.domain)}

    def apply(self, paths: Paths, before: Before) -> None:
        # useradd's own lock gives up after some seconds: starts at once wait for ours instead.
        with ledger(paths).locked():
            users.create(self.name, before["uid"], self.groups, self.domain)

    def undo(self, paths: Paths, before: Before) -> str:
        uid = before["uid"]
        if users.has_processes(uid):
            raise HostError(
                f"user {self.name} still has processes", fix=f"see which: ps -u {self.name}"
            )
        with ledger(paths).locked():
            users.remove(self.name, uid)
        return ""


@dataclass(frozen=True)
class EndProcesses(Change):
    """Do nothing at first; at undo, end every process of the domain's user.

    An escaped guest may leave processes that libvirt does not know, with the tap and the disks
    still open. So this is the last change in a plan: they end before anything else is undone.
    """

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    user: str

    def describe(self) -> str:
        return f"end every process of user {self.user} after the stop"

    def capture(self, paths: Paths) -> Before:
        return {}

    def apply(self, paths: Paths, before: Before) -> None:
        """There is nothing to do before the stop."""

    def undo(self, paths: Paths, before: Before) -> str:
        account = users.account(self.user)
        if account is not None and account.domain:
            users.kill_processes(account)
        return ""

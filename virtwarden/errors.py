# SPDX-License-Identifier: GPL-2.0-or-later
"""The errors of virt-warden: one small tree, each error one line that an admin can act on."""

from __future__ import annotations

from virtwarden.words import printable

FIX = "; fix: "
"""Stands in each message between what is wrong and the command or edit that removes its cause."""


class WardenError(Exception):
    """Something that an admin must know: what is wrong, where, and the fix.

    `str()` gives a single line. `fix` is a command to paste or an edit to make.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        if self.fix:
            line = f"{line}{FIX}{self.fix}"
        return printable(" ".join(line.split()))


class Refusal(WardenError):
    """A guard refuses to start this domain."""


class PolicyError(WardenError):
    """The policy cannot be used; `where` is file:line."""


class DomainError(WardenError):
    """A domain's XML cannot be used."""


class HostError(WardenError):
    """The host did not do what was asked of it."""


class CommandError(HostError):
    """An outside command failed, or did not end in time.

    `code` is its exit code, `said` the last line that it wrote on stderr.
    """

    def __init__(self, what: str, *, code: int, said: str, fix: str = "") -> None:
        super().__init__(what, fix=fix)
        self.code = code
        self.said = said


class JournalError(WardenError):
    """A journal cannot be read or written."""

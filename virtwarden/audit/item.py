# SPDX-License-Identifier: GPL-2.0-or-later
"""One thing that the audit looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum

from virtwarden.words import printable


class Severity(Enum):
    """How much a bad item matters, by the exit code that it gives the audit."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4

    @property
    def word(self) -> str:
        """The word in reports."""
        return self.name.lower()


class State(StrEnum):
    """What the audit found."""

    GOOD = "good"
    BAD = "bad"
    UNKNOWN = "unknown"
    """It could not be looked at; `seen` says why."""
    WAIVED = "waived"
    """Bad, and the policy says why it may be."""


@dataclass(frozen=True)
class Item:
    """One thing that the audit looked at.

    `id` stays the same from version to version, so that a waiver can name it. `subject` is a
    domain's name, an interface or a setting of the host's network, or `host`. `fix` is a command to
    paste or an edit to make.
    """

    id: str
    subject: str
    severity: Severity
    state: State
    title: str
    seen: str
    why: str
    fix: str = ""
    waiver: str = ""


HOST = "host"


@dataclass(frozen=True)
class Check:
    """What an item is about, before the audit looks.

    The titles state a fact: one for a good item, the other for a bad one.
    """

    id: str
    severity: Severity
    good_title: str
    bad_title: str
    why: str
    fix: str

    def good(self, seen: str, subject: str = HOST) -> Item:
        """It is as it should be."""
        return self._item(subject, State.GOOD, self.good_title, seen, "")

    def bad(self, seen: str, subject: str = HOST, fix: str = "") -> Item:
        """It is not as it should be; `fix` where it differs from the check's own."""
        return self._item(subject, State.BAD, self.bad_title, seen, fix or self.fix)

    def unknown(self, seen: str, subject: str = HOST, fix: str = "") -> Item:
        """The audit could not look at it."""
        return self._item(subject, State.UNKNOWN, f"Not checked: {self.good_title}", seen, fix)

    def judged(self, good: bool, seen: str, subject: str = HOST) -> Item:
        """Good or bad."""
        return self.good(seen, subject) if good else self.bad(seen, subject)

    def _item(self, subject: str, state: State, title: str, seen: str, fix: str) -> Item:
        # These words come from outside: names, paths, what a tool printed.
        words = [printable(text) for text in (seen, fix)]
        return Item(
            id=self.id,
            subject=printable(subject),
            severity=self.severity,
            state=state,
            title=title,
            seen=words[0],
            why=self.why,
            fix=words[1],
        )

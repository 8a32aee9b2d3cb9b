# SPDX-License-Identifier: GPL-2.0-or-later
"""The interface of a change: a value that can be described, stored, applied and undone."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from typing import Any, ClassVar, Protocol, runtime_checkable

from virtwarden.paths import Paths

Before = dict[str, Any]


class Scope(Enum):
    """How long a change lasts."""

    RUN = "run"
    """From prepare to release."""
    ENROLMENT = "enrolment"
    """From the first prepare until the domain is unenrolled."""


class Change(Protocol):
    """One alteration of the host: a frozen dataclass of plain values.

    `capture` reads the present state, as data for JSON, and changes nothing. `apply` makes the
    change. `undo` restores the captured state. `undo` must be harmless when it runs twice, when
    `apply` never ran, and when `apply` was interrupted. It gives a sentence about an object that it
    did not restore because the object is no longer the captured one.
    """

    scope: ClassVar[Scope]
    durable: ClassVar[bool]
    """Whether the effect outlives a reboot, so that its record must too."""

    def describe(self) -> str:
        """What the change does, in words for an admin."""

    def capture(self, paths: Paths) -> Before:
        """What is there now."""

    def apply(self, paths: Paths, before: Before) -> None:
        """Do it."""

    def undo(self, paths: Paths, before: Before) -> str:
        """Put back what was there."""


@runtime_checkable
class Checkable(Protocol):
    """A change that can tell by itself whether it was done to its end."""

    @property
    def is_whole(self) -> bool:
        """Whether all of it was done; a kill may have cut it off in the middle."""


def values(change: Change) -> dict[str, Any]:
    """A change's fields, for the journal."""
    return asdict(change)  # type: ignore[call-overload,no-any-return]

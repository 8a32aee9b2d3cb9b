"""What can be done to a host, each a value that can be described, stored, done and undone."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from typing import Any, ClassVar, Protocol, runtime_checkable

from virtwarden.paths import Paths

Before = dict[str, Any]


class Scope(Enum):
    """How long a change is meant to stand."""

    RUN = "run"
    """From prepare to release."""
    ENROLMENT = "enrolment"
    """From the first prepare until the domain is unenrolled."""


class Change(Protocol):
    """One alteration of the host: a frozen dataclass of plain values.

    `capture` reads what is there now, as JSON-able data, and alters nothing. `apply` does the
    change; `undo` puts back what was captured. `undo` must do no harm when it comes twice, when
    `apply` never came, or when it was cut off in the middle, and gives back a sentence about
    whatever it left alone because it is no longer what was captured.
    """

    scope: ClassVar[Scope]
    durable: ClassVar[bool]
    """Whether the effect outlives a reboot, so that its record must too."""

    def describe(self) -> str:
        """What will be done, as an admin would say it."""

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

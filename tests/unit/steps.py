# SPDX-License-Identifier: GPL-2.0-or-later
"""A kind of change that alters nothing but a list, for tests of what does and undoes changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from virtwarden.changes import KINDS, Before, Scope, journal
from virtwarden.errors import HostError
from virtwarden.paths import Paths


@dataclass
class World:
    """What was done, in order, and what fails."""

    done: list[str] = field(default_factory=list)
    fails: dict[str, Exception] = field(default_factory=dict)
    reports: dict[str, str] = field(default_factory=dict)
    torn: set[str] = field(default_factory=set)

    def act(self, what: str) -> None:
        if what in self.fails:
            raise self.fails[what]
        self.done.append(what)


WORLD = World()


@dataclass(frozen=True)
class Step:
    """See Change."""

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = True

    name: str
    pair: tuple[int, int] = (1, 2)

    def describe(self) -> str:
        return f"do {self.name}"

    def capture(self, paths: Paths) -> Before:
        WORLD.act(f"capture {self.name}")
        return {"was": f"{self.name} before"}

    def apply(self, paths: Paths, before: Before) -> None:
        WORLD.act(f"apply {self.name}")

    def undo(self, paths: Paths, before: Before) -> str:
        assert before == {"was": f"{self.name} before"}
        assert self.pair == (1, 2)
        WORLD.act(f"undo {self.name}")
        return WORLD.reports.get(self.name, "")


@dataclass(frozen=True)
class LastingStep(Step):
    """One that stays until the domain is unenrolled."""

    scope: ClassVar[Scope] = Scope.ENROLMENT
    durable: ClassVar[bool] = False


@dataclass(frozen=True)
class WholeStep(Step):
    """One that can tell whether it was done to its end: see Checkable."""

    @property
    def is_whole(self) -> bool:
        return self.name not in WORLD.torn


def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The world of one test, which the journal knows the steps of."""
    ours = {kind.__name__: kind for kind in (Step, LastingStep, WholeStep)}
    monkeypatch.setattr(journal, "KINDS", {**KINDS, **ours})
    WORLD.__init__()  # type: ignore[misc]
    yield WORLD
    WORLD.__init__()  # type: ignore[misc]


def broken(what: str = "it will not") -> HostError:
    return HostError(what, fix="look at it")

# SPDX-License-Identifier: GPL-2.0-or-later
"""The audit's reports: one module a format, each with one function of a Report."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable
from dataclasses import dataclass

from virtwarden import __version__
from virtwarden.audit.item import Item, State
from virtwarden.audit.waivers import waive
from virtwarden.policy import Policy

EXIT_CODES = "0 good, 1 low, 2 medium, 3 high, 4 critical: the worst that is bad or unknown"


@dataclass(frozen=True)
class Report:
    """An audit of one host at one time; `made_at` is ISO 8601."""

    host: str
    version: str
    made_at: str
    items: tuple[Item, ...]

    @property
    def amiss(self) -> tuple[Item, ...]:
        """The bad and the unknown items, the worst first."""
        found = [item for item in self.items if item.state in (State.BAD, State.UNKNOWN)]
        return tuple(sorted(found, key=lambda item: (-_weight(item), item.id, item.subject)))

    @property
    def exit_code(self) -> int:
        """See EXIT_CODES."""
        return max((_weight(item) for item in self.amiss), default=0)

    def count(self, state: State) -> int:
        """How many items are so."""
        return sum(item.state is state for item in self.items)


def report_on(items: Iterable[Item], policy: Policy) -> Report:
    """A report of this host, made now, with what the policy waives."""
    now = datetime.datetime.now(datetime.UTC).astimezone()
    judged = waive(items, policy.rules_for("").waivers, now.date())
    made_at = now.isoformat(timespec="seconds")
    return Report(os.uname().nodename, __version__, made_at, tuple(judged))


def _weight(item: Item) -> int:
    """An unknown item counts less than a bad one."""
    return item.severity.value if item.state is State.BAD else 1

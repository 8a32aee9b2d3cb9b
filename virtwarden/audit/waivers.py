# SPDX-License-Identifier: GPL-2.0-or-later
"""Waivers: bad items that the policy accepts, each for a reason and until a day."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

from virtwarden.audit.item import Check, Item, Severity, State
from virtwarden.policy import Waiver

EXPIRED = Check(
    "host.audit.waiver",
    Severity.MEDIUM,
    "No waiver has expired",
    "A waiver has expired",
    "Nobody has decided about its item since.",
    "fix the item, or set a later day in the policy",
)


def waive(items: Iterable[Item], waivers: Mapping[str, Waiver], today: datetime.date) -> list[Item]:
    """The items, waived where a waiver names them; and one item for each expired waiver."""
    holding = {name: w for name, w in waivers.items() if _until(w) >= today}
    judged = [_waived(item, holding) for item in items]
    expired = [
        EXPIRED.bad(f"[waivers.{name}] for {waiver.item} expired on {waiver.until}")
        for name, waiver in sorted(waivers.items())
        if name not in holding
    ]
    return [*judged, *expired]


def _until(waiver: Waiver) -> datetime.date:
    return datetime.date.fromisoformat(waiver.until)


def _waived(item: Item, waivers: Mapping[str, Waiver]) -> Item:
    if item.state not in (State.BAD, State.UNKNOWN):
        return item
    for waiver in waivers.values():
        if waiver.item == item.id and fnmatchcase(item.subject, waiver.subject):
            reason = f"{waiver.reason} (until {waiver.until})"
            return replace(item, state=State.WAIVED, waiver=reason)
    return item

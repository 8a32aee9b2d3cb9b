# SPDX-License-Identifier: GPL-2.0-or-later
"""The interface of a backend: one of the kernel's ways to filter the frames from a tap."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from virtwarden.system.netfilter.promise import TapFilter

Chains = dict[str, list[str]]
"""The rules of each chain, by its name."""


class Backend(Protocol):
    """One way to filter. All backends keep the same promise, except for what `cannot` says."""

    name: str

    def works(self) -> bool:
        """Whether this host's kernel and tools can do it."""

    def cannot(self, promise: TapFilter) -> str:
        """Which part of a promise it has no way to keep, in words; empty where it keeps all."""

    def install(self, promises: Sequence[TapFilter], also: str = "") -> None:
        """Give the taps the rules of these promises, all at once, and replace any rules they had.

        `also` is a transaction in this backend's words. Either both are done or neither is. Raises
        CommandError.
        """

    def renew(self, promises: Sequence[TapFilter], also: str = "") -> None:
        """Do the same as `install` for all taps that have rules: what is there may all go."""

    def remove(self, taps: Sequence[str], also: str = "") -> None:
        """Remove the taps' rules, and do `also` as in `install`; harmless where there are none."""

    def dropped(self, promises: Sequence[TapFilter]) -> dict[str, Counter[str]]:
        """How many frames each promise dropped since its rules were laid, by tap and promise.

        A tap without rules, or with others, has none.
        """

    def missing(self, promise: TapFilter) -> str:
        """Which part of the promise the kernel's own listing lacks; empty where none."""

    def first_missing(self, promises: Sequence[TapFilter]) -> str:
        """What of any of these is missing, the first that is found; faster than one by one."""


def tally(words: Chains, there: Chains, count: re.Pattern[str]) -> Counter[str]:
    """How many frames each promise dropped, by the counts that a tool lists.

    `words` has the promise of each rule in the rule's place, and nothing for a rule that drops
    nothing. A chain that has other rules than ours is passed over.
    """
    found: Counter[str] = Counter()
    for chain, promises in words.items():
        rules = there.get(chain, [])
        if len(rules) == len(promises):
            for promise, rule in zip(promises, rules, strict=True):
                met = count.search(rule)
                if promise and met:
                    found[promise] += int(met[1])
    return found


def difference(wanted: Chains, there: Chains, place: str) -> str:
    """What is wrong with the chains of a place; empty where nothing is.

    The same release of a tool must have listed both: another release lists a rule in other words.
    """
    expected = [(chain, rule) for chain, rules in wanted.items() for rule in rules]
    lost = [rule for chain, rule in expected if rule not in there.get(chain, [])]
    if lost:
        return f"{len(lost)} of {len(expected)} rules are gone from {place}, the first: {lost[0]}"
    if there != wanted:
        return f"{place} has rules that virt-warden did not put there"
    return ""

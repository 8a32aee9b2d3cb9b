# SPDX-License-Identifier: GPL-2.0-or-later
"""The interface of a backend: one of the kernel's ways to filter the frames from a tap."""

from __future__ import annotations

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

    def replace(self, promises: Sequence[TapFilter], also: str = "") -> None:
        """Do the same as `install`, but faster where most taps already have rules."""

    def remove(self, taps: Sequence[str], also: str = "") -> None:
        """Remove the taps' rules, and do `also` as in `install`; harmless where there are none."""

    def missing(self, promise: TapFilter) -> str:
        """Which part of the promise the kernel's own listing lacks; empty where none."""


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

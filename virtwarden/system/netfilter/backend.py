# SPDX-License-Identifier: GPL-2.0-or-later
"""What a backend is: one way of the kernel's to filter what comes from a tap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from virtwarden.system.netfilter.promise import TapFilter

Chains = dict[str, list[str]]
"""The rules of each chain, by its name."""


class Backend(Protocol):
    """One way to filter; all of them promise the same, but for what `cannot` says."""

    name: str

    def works(self) -> bool:
        """Whether this host's kernel and tools can do it."""

    def cannot(self, promise: TapFilter) -> str:
        """What of a promise it has no way to keep, in words; empty where it keeps all."""

    def install(self, promises: Sequence[TapFilter], also: str = "") -> None:
        """Have the kernel hold the taps to the promises, all at once, in place of any they had.

        `also` is a transaction of this backend's that is done with it, or not at all. Raises
        CommandError.
        """

    def replace(self, promises: Sequence[TapFilter], also: str = "") -> None:
        """Do as `install`, quicker where most have rules."""

    def remove(self, taps: Sequence[str], also: str = "") -> None:
        """Take the taps' rules away, and do what `install` says; harmless where there are none."""

    def missing(self, promise: TapFilter) -> str:
        """What the kernel does not do of the promise, by its own listing; empty where all is."""


def difference(wanted: Chains, there: Chains, place: str) -> str:
    """What is not as it should be in a place, by its chains; empty where all is.

    Both are in the words of one and the same tool: another release lists a rule in other words.
    """
    expected = [(chain, rule) for chain, rules in wanted.items() for rule in rules]
    lost = [rule for chain, rule in expected if rule not in there.get(chain, [])]
    if lost:
        return f"{len(lost)} of {len(expected)} rules are gone from {place}, the first: {lost[0]}"
    if there != wanted:
        return f"{place} has rules that virt-warden did not put there"
    return ""

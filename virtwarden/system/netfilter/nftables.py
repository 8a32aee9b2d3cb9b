# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules in nftables: a netdev ingress chain on the tap, at a cost that is each tap's own.

All taps' chains are in one table, and no rule has a set: before nft 1.0.6 does anything, it sets up
half a megabyte for each table that is there, and often asks the kernel for each set by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from virtwarden.errors import CommandError
from virtwarden.system.netfilter.backend import Backend, Chains, difference
from virtwarden.system.netfilter.nftwords import chain_of, chains
from virtwarden.system.netfilter.promise import TapFilter
from virtwarden.system.nft import accepts, blocks, nft
from virtwarden.system.scratchnet import in_scratch_network

_TABLE = "virt-warden"
# The one device of a network namespace that is new.
_SCRATCH_DEVICE = "lo"


class Nftables(Backend):
    """A base chain for each tap, and more for what has exceptions, all in one netdev table."""

    name = "nftables"

    def works(self) -> bool:
        return accepts(_created("lo", {chain_of("lo"): []}, "lo"))

    def cannot(self, promise: TapFilter) -> str:
        return ""

    def install(self, promises: Sequence[TapFilter], also: str = "") -> None:
        """A tap that was just made has no chains: `create` is then done at once.

        It fails where there are any. Only then are they deleted, for which the kernel waits until
        no frame on its way is looked at by the old ones, 10 ms and more.
        """
        try:
            nft(_all_created(promises) + also)
        except CommandError:
            self.replace(promises, also)

    def replace(self, promises: Sequence[TapFilter], also: str = "") -> None:
        removal = _removal([promise.tap for promise in promises], _chains_by_table())
        nft(removal + _all_created(promises) + also)

    def remove(self, taps: Sequence[str], also: str = "") -> None:
        there = _chains_by_table() if taps else {}
        text = _removal(taps, there)
        if _TABLE in there and len(_chains_of(taps, there)) == len(there[_TABLE]):
            text += _table_deleted()
        if text + also:
            nft(text + also)

    def missing(self, promise: TapFilter) -> str:
        wanted = _bound(promise)
        there: Chains = {}
        for chain in wanted:
            try:
                there |= _listed(chain)
            except CommandError:
                return f"nft knows no chain {chain} in table netdev {_TABLE}"
        if there == wanted:
            return ""
        wanted = in_scratch_network(lambda: _as_listed(promise))
        base = chain_of(promise.tap)
        if there[base][:1] != wanted[base][:1]:
            return f"nft chain {base} of table netdev {_TABLE} is not bound to {promise.tap}"
        return difference(wanted, there, f"nft table netdev {_TABLE}")


def _bound(promise: TapFilter) -> Chains:
    """The chains of one tap in our words, the base chain with its hook."""
    wanted = chains(promise)
    base = chain_of(promise.tap)
    return wanted | {base: [_hook(promise.tap), *wanted[base]]}


def _as_listed(promise: TapFilter) -> Chains:
    """The same in the words of the nft that is here, laid and listed where nothing else is."""
    wanted = chains(promise)
    nft(_created(promise.tap, wanted, _SCRATCH_DEVICE))
    there: Chains = {}
    for chain in wanted:
        there |= _listed(chain)
    base = chain_of(promise.tap)
    hook = there[base][0].replace(f'"{_SCRATCH_DEVICE}"', f'"{promise.tap}"')
    return there | {base: [hook, *there[base][1:]]}


def _listed(chain: str) -> Chains:
    # One after the other: of several in one call, nft 1.0.6 finds the last alone.
    return listed_chains(nft(f"list chain netdev {_TABLE} {chain}"))


def _hook(device: str) -> str:
    return f'type filter hook ingress device "{device}" priority -500; policy accept;'


def _all_created(promises: Iterable[TapFilter]) -> str:
    return "".join(_created(each.tap, chains(each), each.tap) for each in promises)


def _created(tap: str, chains: Chains, device: str) -> str:
    lines = [f"add table netdev {_TABLE}"]
    for chain in chains:
        hook = f" {{ {_hook(device)} }}" if chain == chain_of(tap) else ""
        lines.append(f"create chain netdev {_TABLE} {chain}{hook}")
    for chain, rules in chains.items():
        lines += [f"add rule netdev {_TABLE} {chain} {rule}" for rule in rules]
    return "\n".join([*lines, ""])


def _table_deleted() -> str:
    # Deleting needs that it is there: added first, one text does for both cases.
    return f"add table netdev {_TABLE}\ndelete table netdev {_TABLE}\n"


def _removal(taps: Sequence[str], there: Chains) -> str:
    """What takes these taps' chains away."""
    ours = _chains_of(taps, there)
    # A kernel before 6.16 takes the base chain away with its tap, perhaps just now: each is added
    # first.
    verbs = ("add", "flush", "delete")
    return "".join(f"{verb} chain netdev {_TABLE} {chain}\n" for verb in verbs for chain in ours)


def _chains_of(taps: Sequence[str], there: Chains) -> list[str]:
    bases = {chain_of(tap) for tap in taps}
    return [chain for chain in there.get(_TABLE, []) if chain.partition("/")[0] in bases]


def _chains_by_table() -> Chains:
    """The names of all chains of the family netdev."""
    listed = nft("list chains netdev")
    tables = re.findall(r"^table netdev (\S+) {\n(.*?)^}", listed, re.DOTALL | re.MULTILINE)
    return {name: [*listed_chains(chains)] for name, chains in tables}


def listed_chains(listed: str) -> Chains:
    """The chains of a table that nft listed: where each hooks in, if it does, and its rules."""
    found = blocks(listed).items()
    return {name.removeprefix("chain "): lines for name, lines in found if name[:6] == "chain "}

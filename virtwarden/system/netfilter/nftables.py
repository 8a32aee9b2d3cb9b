# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules in nftables: a netdev ingress chain on each tap, so only that tap's frames pay for it.

The chains of all taps are in one table, and no rule has a set. Before nft 1.0.6 does anything, it
sets up half a megabyte for each table that is there, and often asks the kernel for each set
separately.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from virtwarden.errors import CommandError
from virtwarden.system.netfilter.backend import Backend, Chains, difference, tally
from virtwarden.system.netfilter.nftwords import chain_of, chains, counted
from virtwarden.system.netfilter.promise import TapFilter
from virtwarden.system.nft import accepts, blocks, nft
from virtwarden.system.scratchnet import in_scratch_network

_TABLE = "virt-warden"
# The only device in a new network namespace.
_SCRATCH_DEVICE = "lo"
# The chains of so many taps are listed one by one, which is faster where the table has many others.
_FEW = 4
_COUNT = re.compile(r" ?counter packets (\d+) ")


class Nftables(Backend):
    """A base chain for each tap, and one for each rule with exceptions, in one netdev table."""

    name = "nftables"

    def works(self) -> bool:
        return accepts(_created("lo", {chain_of("lo"): []}, "lo"))

    def cannot(self, promise: TapFilter) -> str:
        return ""

    def install(self, promises: Sequence[TapFilter], also: str = "") -> None:
        """Try `create` first: it is fast for a tap that was just made, which has no chains.

        It fails where there are chains, and only then are they deleted. A deletion takes 10 ms and
        more: the kernel waits until no frame is in the old chains.
        """
        try:
            nft(_all_created(promises) + also)
        except CommandError:
            removal = _removal([promise.tap for promise in promises], _chains_by_table())
            nft(removal + _all_created(promises) + also)

    def renew(self, promises: Sequence[TapFilter], also: str = "") -> None:
        nft(_table_deleted() + _all_created(promises) + also)

    def remove(self, taps: Sequence[str], also: str = "") -> None:
        there = _chains_by_table() if taps else {}
        text = _removal(taps, there)
        if _TABLE in there and len(_chains_of(taps, there)) == len(there[_TABLE]):
            text += _table_deleted()
        if text + also:
            nft(text + also)

    def dropped(self, promises: Sequence[TapFilter]) -> dict[str, Counter[str]]:
        try:
            many = len(promises) > _FEW
            there = _whole_table(counts=True) if many else _counted_chains(promises)
        except CommandError:  # somebody flushed them
            return {}
        # A base chain is listed with its hook before its rules.
        rules = {
            name: [line for line in lines if not _is_hook(line)] for name, lines in there.items()
        }
        return {each.tap: tally(counted(each), rules, _COUNT) for each in promises}

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

    def first_missing(self, promises: Sequence[TapFilter]) -> str:
        place = f"nft table netdev {_TABLE}"
        try:
            there = _whole_table() if promises else {}
        except CommandError:
            return f"nft knows no table netdev {_TABLE}"
        wanted = {chain: lines for each in promises for chain, lines in _bound(each).items()}
        if all(there.get(chain) == lines for chain, lines in wanted.items()):
            return ""
        wanted = in_scratch_network(lambda: _all_as_listed(promises))
        return difference(wanted, {chain: there.get(chain, []) for chain in wanted}, place)


def _bound(promise: TapFilter) -> Chains:
    """The chains of one tap in our words; the base chain begins with its hook."""
    wanted = chains(promise)
    base = chain_of(promise.tap)
    return wanted | {base: [_hook(promise.tap), *wanted[base]]}


def _as_listed(promise: TapFilter) -> Chains:
    """The same, as this host's nft lists it in a network namespace of its own."""
    wanted = chains(promise)
    nft(_created(promise.tap, wanted, _SCRATCH_DEVICE))
    there: Chains = {}
    for chain in wanted:
        there |= _listed(chain)
    base = chain_of(promise.tap)
    hook = there[base][0].replace(f'"{_SCRATCH_DEVICE}"', f'"{promise.tap}"')
    return there | {base: [hook, *there[base][1:]]}


def _all_as_listed(promises: Sequence[TapFilter]) -> Chains:
    """The same for several taps, listed at once."""
    nft("".join(_created(each.tap, chains(each), _SCRATCH_DEVICE) for each in promises))
    there = _whole_table()
    for each in promises:
        base = there[chain_of(each.tap)]
        base[0] = base[0].replace(f'"{_SCRATCH_DEVICE}"', f'"{each.tap}"')
    return there


def _whole_table(*, counts: bool = False) -> Chains:
    return listed_chains(nft(f"list table netdev {_TABLE}", stateless=not counts))


def _listed(chain: str, *, counts: bool = False) -> Chains:
    # One chain in each call: of several in one call, nft 1.0.6 lists only the last.
    return listed_chains(nft(f"list chain netdev {_TABLE} {chain}", stateless=not counts))


def _counted_chains(promises: Sequence[TapFilter]) -> Chains:
    there: Chains = {}
    for chain in (chain for each in promises for chain in counted(each)):
        there |= _listed(chain, counts=True)
    return there


def _is_hook(line: str) -> bool:
    return line.startswith("type filter hook ")


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
    # Only a table that is there can be deleted: so it is added first.
    return f"add table netdev {_TABLE}\ndelete table netdev {_TABLE}\n"


def _removal(taps: Sequence[str], there: Chains) -> str:
    """The lines that remove these taps' chains."""
    ours = _chains_of(taps, there)
    # A kernel before 6.16 removes the base chain together with its tap, perhaps at this moment. So
    # each chain is added first.
    verbs = ("add", "flush", "delete")
    return "".join(f"{verb} chain netdev {_TABLE} {chain}\n" for verb in verbs for chain in ours)


def _chains_of(taps: Sequence[str], there: Chains) -> list[str]:
    bases = {chain_of(tap) for tap in taps}
    return [chain for chain in there.get(_TABLE, []) if chain.partition("/")[0] in bases]


def _chains_by_table() -> Chains:
    """The names of all chains of the netdev family, by table."""
    listed = nft("list chains netdev")
    tables = re.findall(r"^table netdev (\S+) {\n(.*?)^}", listed, re.DOTALL | re.MULTILINE)
    return {name: [*listed_chains(chains)] for name, chains in tables}


def listed_chains(listed: str) -> Chains:
    """The chains in nft's listing of a table: each one's hook, if it has one, and its rules."""
    found = blocks(listed).items()
    return {name.removeprefix("chain "): lines for name, lines in found if name[:6] == "chain "}

# SPDX-License-Identifier: GPL-2.0-or-later
"""The gate of a host: a tap that is not admitted neither sends nor receives on any bridge.

A tap that libvirt makes for a running domain carries frames at once, and libvirt calls no hook for
it. No program could add a filter fast enough. So the gate shuts the tap out before it exists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile
from typing import Protocol

from virtwarden.errors import CommandError
from virtwarden.system.netfilter.backend import Chains
from virtwarden.system.netfilter.ebtables import EBTABLES_RESTORE, PLACES, listed
from virtwarden.system.netfilter.nftables import listed_chains
from virtwarden.system.nft import nft
from virtwarden.system.run import run
from virtwarden.system.scratchnet import in_scratch_network
from virtwarden.system.taps import Tap


class Gate(Protocol):
    """One way to keep the gate; `foreign` are names of foreign taps, or prefixes that end in *."""

    name: str
    table: str
    """The table of nftables that has all of it; empty where there is none of its own."""

    def raising(self, admitted: Sequence[Tap], foreign: Sequence[str]) -> str:
        """The transaction that raises the gate, and replaces what is left of an earlier one."""

    def lowering(self) -> str:
        """The transaction that removes the gate; harmless where there is none."""

    def admission(self, taps: Sequence[Tap]) -> str:
        """The transaction that admits taps; it fails where the gate is not up."""

    def dismissal(self, taps: Sequence[Tap]) -> str:
        """The transaction that shuts taps out again; it fails where the gate is not up."""

    def perform(self, transaction: str) -> None:
        """Have the kernel do a transaction. Raises CommandError."""

    def stands(self) -> bool:
        """Whether the gate is up, by the kernel's own listing."""

    def shut_out(self, taps: Sequence[Tap]) -> list[str] | None:
        """The names of those of these taps that are not admitted; None where the gate is not up."""


# Stands for the name of a foreign tap where a rule that admits one is compared.
_ANY_TAP = "vmw-any-tap"


class NftablesGate(Gate):
    """A set of the admitted taps, by index. A large set is as fast as a small one.

    It shuts out a tap of any name: the kernel tells a tap by its kind. Frames to the groups that no
    bridge forwards pass only `input`.
    """

    name = "nftables"
    table = "virt-warden"

    _TABLE = "bridge virt-warden"
    _HOOKS: Mapping[str, str] = {"prerouting": "iif", "input": "iif", "postrouting": "oif"}

    def raising(self, admitted: Sequence[Tap], foreign: Sequence[str]) -> str:
        lines = [f"table {self._TABLE} {{", "  set admitted {", "    type iface_index"]
        indices = ", ".join(str(tap.index) for tap in admitted)
        lines += [f"    elements = {{ {indices} }}"] if indices else []
        lines.append("  }")
        for hook, end in self._HOOKS.items():
            lines += [f"  chain {hook} {{", f"    {self._hooked(hook)}"]
            lines += [f"    {self._pass(end, name)}" for name in foreign]
            lines += [f"    {self._drop(end)}", "  }"]
        return self.lowering() + "\n".join([*lines, "}", ""])

    def _hooked(self, hook: str) -> str:
        return f"type filter hook {hook} priority -500; policy accept;"

    def _pass(self, end: str, name: str) -> str:
        return f'{end}name "{name}" accept'

    def _drop(self, end: str) -> str:
        return f'meta {end}kind "tun" {end} != @admitted drop'

    def lowering(self) -> str:
        return f"add table {self._TABLE}\ndelete table {self._TABLE}\n"

    def admission(self, taps: Sequence[Tap]) -> str:
        return self._elements("add", taps)

    def dismissal(self, taps: Sequence[Tap]) -> str:
        # Only an element that is there can be deleted: so it is added first.
        return self._elements("add", taps) + self._elements("delete", taps)

    def _elements(self, verb: str, taps: Sequence[Tap]) -> str:
        indices = ", ".join(str(tap.index) for tap in taps if tap.index)
        return f"{verb} element {self._TABLE} admitted {{ {indices} }}\n" if indices else ""

    def perform(self, transaction: str) -> None:
        if transaction:
            nft(transaction)

    def stands(self) -> bool:
        return self.shut_out([]) is not None

    def shut_out(self, taps: Sequence[Tap]) -> list[str] | None:
        try:
            table = nft(f"list table {self._TABLE}")
        except CommandError:
            return None
        if not self._stands_in(listed_chains(table)):
            return None
        _, _, elements = table.partition("elements = {")
        words = elements.partition("}")[0].replace(",", " ").split()
        admitted = {word.strip('"') for word in words}
        return [tap.name for tap in taps if not {tap.name, str(tap.index)} & admitted]

    def _stands_in(self, there: Chains) -> bool:
        wanted = {
            hook: [self._hooked(hook), self._pass(end, _ANY_TAP), self._drop(end)]
            for hook, end in self._HOOKS.items()
        }
        return _are_kept(wanted, there) or _are_kept(in_scratch_network(self._as_listed), there)

    def _as_listed(self) -> Chains:
        nft(self.raising([], [_ANY_TAP]))
        return listed_chains(nft(f"list table {self._TABLE}"))


def _are_kept(wanted: Chains, there: Chains) -> bool:
    """Whether each chain has its hook, then only lines that name foreign taps, then its drop."""
    return all(_is_kept(lines, there.get(chain, [])) for chain, lines in wanted.items())


def _is_kept(wanted: list[str], there: list[str]) -> bool:
    hook, passing, drop = wanted
    before, _, after = passing.partition(_ANY_TAP)
    named = (line.removeprefix(before).removesuffix(after) for line in there[1:-1])
    return (
        [*there[:1], *there[1:][-1:]] == [hook, drop]
        and all(line.startswith(before) and line.endswith(after) for line in there[1:-1])
        and not any('"' in name for name in named)
    )


@dataclass(frozen=True)
class _GateChain:
    """A chain of ebtables that all frames from or to libvirt's taps pass."""

    table: str
    hook: str
    frames: str
    end: str

    @property
    def name(self) -> str:
        return f"vmw-gate{self.end}"

    @property
    def jump(self) -> str:
        return f"{self.frames}{self.end} {_LIBVIRTS} -j {self.name}"

    def rule(self, name: str) -> str:
        return f"{self.end} {name} -j RETURN"

    def admitted(self) -> set[str]:
        return set(filter(None, map(self._admits, self._rules())))

    def as_listed(self) -> tuple[list[str], list[str]]:
        """The jumps to the chain, and its rules after those that admit taps, as they are listed."""
        hook = listed(self.table, self.hook).get(self.hook, [])
        jumps = [rule for rule in hook if rule.endswith(f" -j {self.name}")]
        return jumps, [*dropwhile(self._admits, self._rules())]

    def _rules(self) -> list[str]:
        return listed(self.table, self.name).get(self.name, [])

    @staticmethod
    def _admits(rule: str) -> str:
        """Whom a rule lets in, by name; empty where it is no such rule."""
        match rule.split():
            case [_, name, "-j", "RETURN"]:
                return name
        return ""


_LIBVIRTS = "vnet+"


class EbtablesGate(Gate):
    """Chains that the frames of every tap named by libvirt pass, with a rule for each admitted tap.

    They know a tap only by its name: a tap with another name is not shut out.
    """

    name = "ebtables"
    table = ""

    _CHAINS = (
        *(_GateChain(table, hook, frames, "-i") for table, (hook, frames) in PLACES.items()),
        _GateChain("nat", "POSTROUTING", "", "-o"),
    )

    def raising(self, admitted: Sequence[Tap], foreign: Sequence[str]) -> str:
        names = [*(tap.name for tap in admitted), *(name.replace("*", "+") for name in foreign)]
        lines = self.lowering().splitlines()
        for chain in self._CHAINS:
            lines += [f"*{chain.table}", f":{chain.name} RETURN"]
            lines += [f"-A {chain.name} {chain.rule(name)}" for name in names]
            lines += [f"-A {chain.name} -j DROP", f"-I {chain.hook} {chain.jump}", "COMMIT"]
        return "\n".join([*lines, ""])

    def lowering(self) -> str:
        lines = []
        for chain in self._CHAINS:
            if chain.name in listed(chain.table, chain.name):
                lines.append(f"*{chain.table}")
                jumps, _ = chain.as_listed()
                lines += [f"-D {chain.hook} {jump}" for jump in jumps]
                lines += [f"-F {chain.name}", f"-X {chain.name}", "COMMIT"]
        return "\n".join([*lines, ""])

    def admission(self, taps: Sequence[Tap]) -> str:
        return self._rules("-I", taps, there=False)

    def dismissal(self, taps: Sequence[Tap]) -> str:
        return self._rules("-D", taps, there=True)

    def _rules(self, verb: str, taps: Sequence[Tap], *, there: bool) -> str:
        lines = []
        for chain in self._CHAINS:
            admitted = chain.admitted()
            names = [tap.name for tap in taps if (tap.name in admitted) is there]
            rules = [f"{verb} {chain.name} {chain.rule(name)}" for name in names]
            lines += [f"*{chain.table}", *rules, "COMMIT"]
        return "\n".join([*lines, ""])

    def perform(self, transaction: str) -> None:
        if transaction.strip():
            run(EBTABLES_RESTORE, "--noflush", stdin=transaction)

    def stands(self) -> bool:
        there = [chain.as_listed() for chain in self._CHAINS]
        wanted = [([chain.jump], ["-j DROP"]) for chain in self._CHAINS]
        return there == wanted or there == in_scratch_network(self._as_listed)

    def _as_listed(self) -> list[tuple[list[str], list[str]]]:
        self.perform(self.raising([], []))
        return [chain.as_listed() for chain in self._CHAINS]

    def shut_out(self, taps: Sequence[Tap]) -> list[str] | None:
        if not self.stands():
            return None
        admitted = set.intersection(*(chain.admitted() for chain in self._CHAINS))
        prefix = _LIBVIRTS.rstrip("+")
        return [t.name for t in taps if t.name.startswith(prefix) and t.name not in admitted]


GATES: dict[str, Gate] = {gate.name: gate for gate in (NftablesGate(), EbtablesGate())}

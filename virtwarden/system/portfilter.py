# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP ports that only some addresses may reach, with either of the kernel's two firewalls.

It only adds rules that drop, so it opens nothing that the host's own firewall refuses. On the
loopback interface root's connections pass: virt-warden connects there to see what QEMU offers.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from virtwarden.errors import CommandError, HostError
from virtwarden.system import nftlink
from virtwarden.system.nft import accepts, blocks, nft
from virtwarden.system.run import run
from virtwarden.system.scratchnet import in_scratch_network

IPTABLES = "/usr/sbin/iptables"
_XTABLES = {4: IPTABLES, 6: "/usr/sbin/ip6tables"}
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ROOT = 0
# A chain's name has at most 28 characters (iptables-extensions: XT_EXTENSION_MAXNAMELEN).
_CHAIN_LENGTH = 28

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class PortFilter:
    """The ports of one domain's consoles, and the networks that may reach them."""

    domain: str
    ports: tuple[int, ...]
    sources: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check every field, since each becomes part of a rule's text. Raises HostError."""
        if not _UUID.fullmatch(self.domain):
            raise HostError(f"{self.domain!r} is no domain's UUID")
        if not self.ports or not all(0 < port < 65536 for port in self.ports):
            raise HostError(f"{list(self.ports)} are no TCP ports")
        self.networks(4)

    def networks(self, version: int) -> tuple[Network, ...]:
        """The sources of one IP version, overlapping and adjacent ones joined. Raises HostError."""
        try:
            return _collapsed(self.sources, version)
        except ValueError as error:
            raise HostError(f"no address and no network: {error}") from None


def _collapsed(written: Iterable[str], version: int) -> tuple[Network, ...]:
    found = [ipaddress.ip_network(source) for source in written]
    chosen: list[Network] = [network for network in found if network.version == version]
    return tuple(ipaddress.collapse_addresses(chosen))  # type: ignore[type-var]


class Backend(Protocol):
    """One firewall; both keep the same promise."""

    name: str

    def works(self) -> bool:
        """Whether this host's kernel and tools can do it."""

    def install(self, promise: PortFilter) -> None:
        """Have the kernel drop what other addresses send to the ports. Raises CommandError."""

    def remove(self, domain: str) -> None:
        """Remove a domain's rules; harmless where there are none."""

    def missing(self, promise: PortFilter) -> str:
        """Which part of the promise the kernel's own listing lacks; empty where none."""

    def gone(self, domains: Iterable[str]) -> str:
        """Which of these domains has no rules at all, in words; empty where all have some."""


def nft_rules(ports: Iterable[int]) -> dict[str, list[str]]:
    """The rules of each chain, by its hook (nft(8))."""
    listed = sorted(ports)
    to = f"{{ {', '.join(map(str, listed))} }}" if len(listed) > 1 else str(listed[0])
    others = ("ip saddr != @sources4 drop", "ip6 saddr != @sources6 drop")
    return {
        "input": [f'iifname != "lo" tcp dport {to} {other}' for other in others],
        "output": [
            f'oifname "lo" meta skuid != {_ROOT} tcp dport {to} {other}' for other in others
        ],
    }


class Nftables(Backend):
    """One table for each domain, with a set of addresses for each IP version."""

    name = "nftables"

    def works(self) -> bool:
        return accepts(self.render(PortFilter("00000000-0000-0000-0000-000000000000", (1,), ())))

    def render(self, promise: PortFilter) -> str:
        """The transaction that installs the rules and replaces any that the domain had."""
        table = f"inet {_table(promise.domain)}"
        lines = [
            # Only a table that is there can be deleted: so it is added first.
            f"add table {table}",
            f"delete table {table}",
            f"table {table} {{",
        ]
        for version in (4, 6):
            elements = ", ".join(map(str, promise.networks(version)))
            lines.append(f"  set sources{version} {{")
            lines.append(f"    type ipv{version}_addr; flags interval;")
            lines += [f"    elements = {{ {elements} }}"] if elements else []
            lines.append("  }")
        for hook, rules in nft_rules(promise.ports).items():
            lines.append(f"  chain {hook} {{")
            lines.append(f"    type filter hook {hook} priority -10; policy accept;")
            lines += [f"    {rule}" for rule in rules]
            lines.append("  }")
        return "\n".join([*lines, "}"]) + "\n"

    def install(self, promise: PortFilter) -> None:
        nft(self.render(promise))

    def remove(self, domain: str) -> None:
        table = f"inet {_table(domain)}"
        nft(f"add table {table}\ndelete table {table}\n")

    def missing(self, promise: PortFilter) -> str:
        table = _table(promise.domain)
        try:
            there = _blocks(table)
        except CommandError:
            return f"nft knows no table inet {table}"
        if not there:
            return f"nft table inet {table} is dormant"
        wanted = in_scratch_network(lambda: self._as_listed(promise))
        for block, lines in wanted.items():
            if there.get(block) != lines:
                return _amiss(f"nft table inet {table}", block, there)
        if there != wanted:
            return f"nft table inet {table} has rules that virt-warden did not put there"
        return ""

    def gone(self, domains: Iterable[str]) -> str:
        there = nftlink.tables(nftlink.INET)
        lost = (_table(domain) for domain in domains if _table(domain) not in there)
        return next((f"nft knows no table inet {table}" for table in lost), "")

    def _as_listed(self, promise: PortFilter) -> dict[str, list[str]]:
        """The table as this host's nft lists it in a network namespace of its own."""
        self.install(promise)
        return _blocks(_table(promise.domain))


def _table(domain: str) -> str:
    return f"vmw-console-{domain}"


def _blocks(table: str) -> dict[str, list[str]]:
    return blocks(nft(f"list table inet {table}", numeric=True))


def _amiss(table: str, block: str, there: dict[str, list[str]]) -> str:
    if block.startswith("set "):
        return f"{table} does not match admin_workstations"
    if not there.get(block, [""])[0].startswith("type filter hook "):
        return f"{table} has no {block} that is bound"
    return f"{block} of {table} has not the rules it had"


class Iptables(Backend):
    """One chain for each domain in iptables and in ip6tables. The jump to it comes first."""

    name = "iptables"

    def works(self) -> bool:
        try:
            for program in _XTABLES.values():
                run(program, "-w", "-S", "INPUT")
        except CommandError:
            return False
        return True

    def install(self, promise: PortFilter) -> None:
        self.remove(promise.domain)
        chain = _chain_name(promise.domain)
        for version, program in _XTABLES.items():
            lines = [
                "*filter",
                f":{chain} -",
                *(f"-A {chain} {rule}" for rule in xtables_rules(promise, version)),
                *(f"-I {hook} {jump}" for hook, jump in _jumps(promise).items()),
                "COMMIT",
            ]
            run(f"{program}-restore", "-w", "--noflush", stdin="\n".join(lines) + "\n")

    def remove(self, domain: str) -> None:
        chain = _chain_name(domain)
        for program in _XTABLES.values():
            there = _listed(program)
            if f"-N {chain}" not in there:
                continue
            jumps = [line for line in there if line.endswith(f" -j {chain}")]
            taken = [line.replace("-A ", "-D ", 1) for line in jumps]
            lines = ["*filter", *taken, f"-F {chain}", f"-X {chain}", "COMMIT"]
            run(f"{program}-restore", "-w", "--noflush", stdin="\n".join(lines) + "\n")

    def missing(self, promise: PortFilter) -> str:
        there = _xtables_of(promise.domain)
        wanted = in_scratch_network(lambda: self._as_listed(promise))
        chain = _chain_name(promise.domain)
        for program, rules in wanted.items():
            name = Path(program).name
            if not {rule for rule in rules if rule.endswith(f" -j {chain}")} <= {*there[program]}:
                return f"{name} does not send what comes to the console to chain {chain}"
            if there[program] != rules:
                return f"{name} chain {chain} has not the rules it had"
        return ""

    def gone(self, domains: Iterable[str]) -> str:
        there = {program: "\n".join([*_listed(program), ""]) for program in _XTABLES.values()}
        for domain in domains:
            chain = _chain_name(domain)
            for program, listed in there.items():
                # A jump from INPUT and one from OUTPUT, and a rule that drops.
                if listed.count(f" -j {chain}\n") < 2 or f"-A {chain} -j DROP\n" not in listed:
                    return f"{Path(program).name} chain {chain} has not the rules it had"
        return ""

    def _as_listed(self, promise: PortFilter) -> dict[str, list[str]]:
        """The rules as this host's iptables lists them in a network namespace of their own."""
        self.install(promise)
        return _xtables_of(promise.domain)


def _xtables_of(domain: str) -> dict[str, list[str]]:
    """What each program lists of a domain's chain: the jumps to it and its rules, in order."""
    chain = _chain_name(domain)
    return {
        program: [
            line
            for line in _listed(program)
            if line.endswith(f" -j {chain}") or line.startswith(f"-A {chain} ")
        ]
        for program in _XTABLES.values()
    }


def xtables_rules(promise: PortFilter, version: int) -> list[str]:
    """The rules of a domain's chain: the sources that may pass, then a drop for all others."""
    return [*(f"-s {source} -j RETURN" for source in promise.networks(version)), "-j DROP"]


def _jumps(promise: PortFilter) -> dict[str, str]:
    ports = ",".join(map(str, promise.ports))
    to = f"-p tcp -m multiport --dports {ports}"
    chain = _chain_name(promise.domain)
    return {
        "INPUT": f"! -i lo {to} -j {chain}",
        "OUTPUT": f"-o lo {to} -m owner ! --uid-owner {_ROOT} -j {chain}",
    }


def _chain_name(domain: str) -> str:
    return f"vmw-{domain.replace('-', '')}"[:_CHAIN_LENGTH]


def _listed(program: str) -> list[str]:
    try:
        return run(program, "-w", "-S").splitlines()
    except CommandError:
        return []


NFTABLES = Nftables()
BACKENDS: dict[str, Backend] = {backend.name: backend for backend in (NFTABLES, Iptables())}

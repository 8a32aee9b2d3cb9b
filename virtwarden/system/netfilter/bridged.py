# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the host's IP firewall drops frames that a bridge forwards (br_netfilter).

While net.bridge.bridge-nf-call-iptables is on, such frames pass the forward chains of iptables and
nftables, too, with the bridge as both interfaces (net/bridge/br_netfilter_hooks.c). Docker,
firewalld and ufw make these chains drop what they do not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from virtwarden.errors import CommandError
from virtwarden.system.netfilter.backend import Chains
from virtwarden.system.nft import blocks, nft
from virtwarden.system.run import run

_SYSCTL = Path("/proc/sys/net/bridge")
_INTERFACES = Path("/sys/class/net")
_PROC = Path("/proc/net")
_TOOLS = {"ip": "iptables", "ip6": "ip6tables"}
# Where Docker leaves room for an admin's own rules: it comes before all others.
_OF_ADMINS = "DOCKER-USER"
_COUNTER = r"(?:counter packets \d+ bytes \d+ )?"
_DROPS = re.compile(rf"{_COUNTER}(?:log .*)?(?:drop|reject(?: with .*)?)")
_JUMPS = re.compile(rf"{_COUNTER}jump (\S+)")
# iptables' words, and nft's for the same.
_WORDS = {"-i": "iifname", "-o": "oifname", "ACCEPT": "accept", "DROP": "drop", "REJECT": "reject"}


@dataclass(frozen=True)
class Drop:
    """A chain that drops a bridge's frames, and the command after which it lets them pass."""

    place: str
    fix: str


def switches(bridge: str) -> tuple[str, ...]:
    """The settings that send a bridge's frames to the IP firewall, as sysctl(8) or ip(8) has them.

    `net.bridge.bridge-nf-call-iptables` for all bridges, `nf_call_iptables` for this one.
    """
    found = []
    for tool in _TOOLS.values():
        if _is_on(_SYSCTL / f"bridge-nf-call-{tool}"):
            found.append(f"net.bridge.bridge-nf-call-{tool}")
        if _is_on(_INTERFACES / bridge / f"bridge/nf_call_{tool}"):
            found.append(f"nf_call_{tool}")
    return tuple(found)


def _is_on(setting: Path) -> bool:
    try:
        return setting.read_text().strip() == "1"
    except OSError:
        return False


def drops(bridge: str) -> tuple[Drop, ...]:
    """Every chain that drops what this bridge forwards. Raises CommandError."""
    on = " ".join(switches(bridge))
    families = [family for family, tool in _TOOLS.items() if re.search(rf"call.{tool}\b", on)]
    return tuple(dict.fromkeys(drop for each in families for drop in _drops_of(each, bridge)))


def _drops_of(family: str, bridge: str) -> Iterator[Drop]:
    for table in (family, "inet"):
        for name, chains in _tables(table):
            for chain, rules in chains.items():
                if _is_dropped(chains, rules, bridge):
                    place = f"table {name}, chain {chain}"
                    yield Drop(place, _passage(family, name, chains, chain, bridge))
    tool = f"{_TOOLS[family]}-legacy"
    chains = _legacy(family)
    if _is_dropped(chains, chains.get("FORWARD", []), bridge):
        chain = _OF_ADMINS if _OF_ADMINS in chains else "FORWARD"
        fix = f"{tool} -I {chain} -i {bridge} -o {bridge} -j ACCEPT"
        yield Drop(f"{tool}, chain FORWARD", fix)


def _tables(family: str) -> Iterator[tuple[str, Chains]]:
    for line in nft(f"list tables {family}").splitlines():
        name = line.removeprefix("table ").strip()
        listed = blocks(nft(f"list table {name}"))
        yield name, {key.removeprefix("chain "): rules for key, rules in listed.items()}


def _legacy(family: str) -> Chains:
    """The chains of the older iptables, in nft's words; none where the kernel has none."""
    try:
        names = (_PROC / f"{family}_tables_names").read_text().split()
        listed = run(f"/usr/sbin/{_TOOLS[family]}-legacy", "-S") if "filter" in names else ""
    except (OSError, CommandError):
        return {}
    found: Chains = {}
    for verb, chain, *words in map(str.split, listed.splitlines()):
        rules = found.setdefault(chain, [])
        if verb == "-P":
            rules.append(f"type filter hook {chain.lower()}; policy {words[0].lower()};")
        elif verb == "-A":
            rules.append(_in_nfts_words(words))
    return found


def _in_nfts_words(words: list[str]) -> str:
    found = []
    for before, word in zip(["", *words], words, strict=False):
        if word == "-j":
            continue
        if before in ("-i", "-o"):
            found.append(f'"{word}"')
        else:
            is_own_chain = before == "-j" and word not in _WORDS
            found.append(f"jump {word}" if is_own_chain else _WORDS.get(word, word))
    return " ".join(found)


def _is_dropped(chains: Chains, rules: list[str], bridge: str) -> bool:
    """Whether a chain drops at its end what comes from this bridge, and no rule before lets it."""
    if not rules or "hook forward" not in rules[0]:
        return False
    ends_in_drop = "policy drop" in rules[0] or bool(_DROPS.fullmatch(rules[-1]))
    return ends_in_drop and not _lets_pass(chains, rules, bridge, frozenset())


def _lets_pass(chains: Chains, rules: list[str], bridge: str, seen: frozenset[str]) -> bool:
    own = f'"{re.escape(bridge)}"'
    # nft does not show what a match of iptables on bridges' ports (physdev) looks for.
    passes = re.compile(rf"(?:(?:(?:iif|oif)name {own} )+|.*physdev.* ){_COUNTER}accept")
    for rule in rules:
        if passes.fullmatch(rule):
            return True
        jump = _JUMPS.fullmatch(rule)
        if jump and jump[1] not in seen:
            below = chains.get(jump[1], [])
            if _lets_pass(chains, below, bridge, seen | {jump[1]}):
                return True
    return False


def _passage(family: str, table: str, chains: Chains, chain: str, bridge: str) -> str:
    if table == f"{family} filter" and chain == "FORWARD":
        first = _OF_ADMINS if _OF_ADMINS in chains else chain
        return f"{_TOOLS[family]} -I {first} -i {bridge} -o {bridge} -j ACCEPT"
    return f"nft insert rule {table} {chain} iifname {bridge} oifname {bridge} accept"

# SPDX-License-Identifier: GPL-2.0-or-later
"""A release whose tools list rules in other words breaks no promise, and hides no broken one.

nftables 1.1 and ebtables 1.8.11 list some of ours in other words than 1.0.6 and 1.8.9 do: these
tests run with either. The one that is made up here has other words for nearly everything.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.host.command import run
from tests.host.tap import open_tap
from virtwarden.errors import CommandError
from virtwarden.system import portfilter, reach, taps
from virtwarden.system.netfilter import BACKENDS, GATES, TapFilter, ebtables
from virtwarden.system.nft import nft
from virtwarden.system.scratchnet import in_scratch_network

TAP = "vnet1"
PROMISE = TapFilter(
    TAP,
    "52:54:00:00:00:01",
    deny_mac_spoofing=True,
    deny_arp_spoofing=True,
    deny_vlan_tags=True,
    deny_neighbour_spoofing=False,
    deny_dhcp_server=True,
    deny_router_advertisements=True,
    broadcast_limit=100,
    multicast_limit=100,
    addresses=("192.0.2.1", "2001:db8::1"),
)
# By nftables alone: ebtables has no words for it.
WITH_NEIGHBOURS = replace(PROMISE, deny_neighbour_spoofing=True)
PORTS = portfilter.PortFilter(
    "11111111-2222-3333-4444-555555555500", (5900, 5901), ("192.0.2.0/24", "2001:db8::/64")
)
REACH = reach.Limit(
    "11111111-2222-3333-4444-555555555501",
    70000,
    (
        reach.Way(first=5900, last=5900),
        reach.Way("tcp", "a", ("192.0.2.7", "2001:db8::7"), 10809, 10809),
        reach.Way("any", "b", ("192.0.2.0/24", "198.51.100.0/24"), 1, 9),
    ),
)
OTHER_WORDS = {
    "ether": "eth",
    "iifname": "in-name",
    "oifname": "out-name",
    "accept": "let-pass",
    "saddr": "source",
    "priority": "prio",
    "drop": "reject",
    "meta": "packet",
    "dport": "to-port",
    "-p": "--protocol",
    "-s": "--source",
    "-d": "--destination",
    "-i": "--in-interface",
    "DROP": "Drop",
}
TABLES = {
    "nftables": "netdev virt-warden",
    "gate": "bridge virt-warden",
    "ports": f"inet vmw-console-{PORTS.domain}",
}


@dataclass(frozen=True)
class Rules:
    """Some rules: laid, taken away, looked at, and meddled with."""

    lay: Callable[[], object]
    remove: Callable[[], object]
    amiss: Callable[[], object]
    meddle: tuple[str, ...]


def of_the_gate(name: str, *meddle: str) -> Rules:
    gate = GATES[name]

    def admitted() -> None:
        tap = taps.find(TAP)
        assert tap
        gate.perform(gate.raising([tap], ["docker0"]))

    def amiss() -> list[str] | None:
        tap = taps.find(TAP)
        assert tap
        shut_out = gate.shut_out([tap])
        return ["it is down"] if shut_out is None else shut_out

    return Rules(admitted, lambda: gate.perform(gate.lowering()), amiss, meddle)


def of_the_tap(backend: str, promise: TapFilter, *meddle: str) -> Rules:
    each = BACKENDS[backend]
    return Rules(
        lambda: each.install([promise]),
        lambda: each.remove([TAP]),
        lambda: each.missing(promise),
        meddle,
    )


def of_the_users(*meddle: str) -> Rules:
    return Rules(
        lambda: reach.set_all([REACH]),
        lambda: reach.set_all([]),
        lambda: reach.missing(REACH),
        meddle,
    )


def of_the_ports(backend: str, *meddle: str) -> Rules:
    each = portfilter.BACKENDS[backend]
    return Rules(
        lambda: each.install(PORTS),
        lambda: each.remove(PORTS.domain),
        lambda: each.missing(PORTS),
        meddle,
    )


ALL = {
    "tap, nftables": of_the_tap(
        *("nftables", WITH_NEIGHBOURS),
        *("nft", "insert", "rule", "netdev", "virt-warden", "vmw-vnet1/ip6", "return"),
    ),
    "tap, ebtables": of_the_tap(
        *("ebtables", PROMISE),
        *("ebtables", "-t", "nat", "-F", "vmw-vnet1/arp"),
    ),
    "gate, nftables": of_the_gate(
        "nftables", "nft", "flush", "chain", "bridge", "virt-warden", "input"
    ),
    "gate, ebtables": of_the_gate("ebtables", "ebtables", "-t", "filter", "-F", "INPUT"),
    "ports, nftables": of_the_ports(
        *("nftables", "nft", "add", "element", "inet"),
        *(f"vmw-console-{PORTS.domain}", "sources4", "{ 203.0.113.1 }"),
    ),
    "users": of_the_users(
        *("nft", "insert", "rule", "inet", "vmw-reach", REACH.chain, "accept"),
    ),
    "ports, iptables": of_the_ports("iptables", "iptables", "-F", "INPUT"),
}


@pytest.fixture(params=ALL)
def rules(request: pytest.FixtureRequest) -> Iterator[Rules]:
    handle = open_tap(TAP)
    found = ALL[request.param]
    found.lay()
    yield found
    found.remove()
    os.close(handle)


def respelled(text: str) -> str:
    words = re.split(r"(\s+)", text)
    return "".join(OTHER_WORDS.get(word, word) for word in words)


@pytest.fixture
def other_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools that take the same words as ever, and list others."""
    nftables: Any = pytest.importorskip("nftables")
    cmd = nftables.Nftables.cmd

    def nft_cmd(self: object, words: str) -> tuple[int, str, str]:
        code, printed, said = cmd(self, words)
        return code, respelled(printed), said

    def listed(*command: str, **options: Any) -> str:
        from virtwarden.system.run import run as real

        return respelled(real(*command, **options))

    monkeypatch.setattr(nftables.Nftables, "cmd", nft_cmd)
    monkeypatch.setattr(ebtables, "run", listed)
    monkeypatch.setattr(portfilter, "run", listed)


def test_rules_that_are_all_there_are_found_whatever_words_the_tool_has(
    rules: Rules, other_release: None
) -> None:
    assert not rules.amiss()


def test_a_rule_that_is_gone_is_missed_whatever_words_the_tool_has(
    rules: Rules, other_release: None
) -> None:
    run(*rules.meddle)
    assert rules.amiss()


OPENED = {
    "nftables": "nft insert rule bridge virt-warden input accept",
    "ebtables": "ebtables -t filter -I vmw-gate-i -j RETURN",
}


@pytest.mark.parametrize("name", OPENED)
def test_a_gate_that_lets_everybody_in_does_not_stand(name: str) -> None:
    gate = GATES[name]
    gate.perform(gate.raising([], ["docker*", "lxc0"]))
    assert gate.stands()
    run(*OPENED[name].split())
    assert not gate.stands()
    assert gate.shut_out([]) is None
    gate.perform(gate.raising([], []))
    assert gate.stands()
    gate.perform(gate.lowering())


def test_rules_are_removed_whatever_words_the_tool_has(rules: Rules, other_release: None) -> None:
    rules.remove()
    for words in ("nft list ruleset", "ebtables-save", "iptables-save", "ip6tables-save"):
        assert "vmw-" not in run(*words.split()).stdout
        assert "virt-warden" not in run(*words.split()).stdout


class TestTheScratchNetwork:
    def test_is_another_one_for_the_library_and_for_commands(self) -> None:
        from virtwarden.system.run import run as command

        handle = open_tap(TAP)
        before = run("nft", "list", "ruleset").stdout

        def look() -> tuple[str, str]:
            nft("add table inet scratch")
            return nft("list tables"), command("/usr/sbin/ip", "-br", "link")

        tables, links = in_scratch_network(look)
        assert tables.split() == ["table", "inet", "scratch"]
        assert [line.split()[0] for line in links.splitlines()] == ["lo"]
        assert run("nft", "list", "ruleset").stdout == before
        os.close(handle)

    def test_leaves_the_rest_of_the_process_where_it_was(self) -> None:
        own = Path("/proc/self/ns/net").readlink()
        nft("add table inet ours")
        try:
            for _ in range(3):
                in_scratch_network(lambda: nft("add table inet scratch"))
                # A later thread may get the number of one that has ended.
                with ThreadPoolExecutor(max_workers=1) as thread:
                    listed = thread.submit(nft, "list tables").result()
                assert "table inet ours" in listed
                assert "scratch" not in listed
            assert Path("/proc/self/ns/net").readlink() == own
        finally:
            nft("delete table inet ours")

    def test_hands_on_what_goes_wrong_in_it(self) -> None:
        with pytest.raises(CommandError):
            in_scratch_network(lambda: nft("list table inet none"))

    def test_that_the_kernel_does_not_make_is_an_error_that_says_so(self) -> None:
        limit = Path("/proc/sys/user/max_net_namespaces")
        before = limit.read_text()
        try:
            limit.write_text("0")
        except OSError:
            pytest.skip("this host's limit cannot be set from here")
        try:
            with pytest.raises(CommandError, match="makes no network namespace"):
                in_scratch_network(lambda: "")
        finally:
            limit.write_text(before)

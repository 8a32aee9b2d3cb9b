# SPDX-License-Identifier: GPL-2.0-or-later
"""All taps' chains are in one table of nft's, and each tap's come and go by themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.host.command import run
from tests.host.tap import open_tap
from tests.libvirt.warden import PATHS
from virtwarden import gate
from virtwarden.system.netfilter import BACKENDS, TapFilter

NFTABLES = BACKENDS["nftables"]
TABLE = ("netdev", "virt-warden")
TAPS = ("vnet1", "vnet11")
DOMAIN = "11111111-2222-3333-4444-5555555555{:02}"


def promise(tap: str, mac: str = "52:54:00:00:00:01") -> TapFilter:
    return TapFilter(tap, mac, deny_mac_spoofing=True, deny_arp_spoofing=True, deny_vlan_tags=True)


def ruleset() -> str:
    return run("nft", "list", "ruleset").stdout


@pytest.fixture(autouse=True)
def taps() -> Iterator[None]:
    PATHS.run.mkdir(mode=0o711, exist_ok=True)
    before = ruleset()
    handles = [open_tap(tap) for tap in TAPS]
    yield
    for handle in handles:
        os.close(handle)
    assert ruleset() == before


def test_one_taps_chains_go_without_anothers_and_the_table_with_the_last() -> None:
    NFTABLES.install([promise(TAPS[1])])
    alone = ruleset()
    NFTABLES.install([promise(TAPS[0])])
    assert [NFTABLES.missing(promise(tap)) for tap in TAPS] == ["", ""]
    NFTABLES.remove([TAPS[0]])
    assert ruleset() == alone
    NFTABLES.remove([TAPS[1]])
    assert "virt-warden" not in ruleset()


def test_a_table_in_which_somebody_else_has_a_chain_stays() -> None:
    NFTABLES.install([promise(TAPS[0])])
    run("nft", "add", "chain", *TABLE, "theirs")
    NFTABLES.remove([TAPS[0]])
    assert run("nft", "list", "table", *TABLE).stdout.split()[4:6] == ["chain", "theirs"]
    run("nft", "delete", "table", *TABLE)


def test_what_is_gone_already_is_removed_all_the_same() -> None:
    NFTABLES.remove(TAPS)
    tap = open_tap("vnet2")
    NFTABLES.install([promise("vnet2")])
    os.close(tap)
    NFTABLES.remove(["vnet2", *TAPS])
    assert "virt-warden" not in ruleset()


def test_nothing_of_a_former_promise_is_left_in_a_later_one() -> None:
    later = promise(TAPS[0], "52:54:00:00:00:02")
    NFTABLES.install([promise(TAPS[0])])
    NFTABLES.install([later])
    assert NFTABLES.missing(later) == ""
    # A kernel before 6.16 takes the base chain away with its tap, and not the others.
    run("nft", "flush", "chain", *TABLE, f"vmw-{TAPS[0]}")
    run("nft", "delete", "chain", *TABLE, f"vmw-{TAPS[0]}")
    NFTABLES.install([promise(TAPS[0])])
    assert NFTABLES.missing(promise(TAPS[0])) == ""
    NFTABLES.remove([TAPS[0]])


@pytest.mark.parametrize(
    "meddle",
    [
        "insert rule netdev virt-warden vmw-vnet1/arp return",
        "flush chain netdev virt-warden vmw-vnet1/rarp",
        "insert rule netdev virt-warden vmw-vnet1 accept",
        "delete table netdev virt-warden",
    ],
)
def test_what_somebody_changed_in_a_taps_chains_is_missed(meddle: str) -> None:
    NFTABLES.install([promise(TAPS[0])])
    assert NFTABLES.missing(promise(TAPS[0])) == ""
    run("nft", meddle)
    assert NFTABLES.missing(promise(TAPS[0]))
    NFTABLES.remove([TAPS[0]])


def test_chains_that_are_bound_to_another_tap_are_missed() -> None:
    NFTABLES.install([promise(TAPS[0])])
    moved = run("nft", "list", "table", *TABLE).stdout.replace(f'"{TAPS[0]}"', f'"{TAPS[1]}"')
    run("nft", "-f", "-", stdin=f"delete table {' '.join(TABLE)}\n{moved}")
    assert "is not bound to vnet1" in NFTABLES.missing(promise(TAPS[0]))
    NFTABLES.remove([TAPS[0]])


def test_domains_that_come_and_go_at_once_leave_each_others_filters_alone() -> None:
    """The last tap's removal takes the table away, just when the next one comes."""

    def comes_and_goes(number: int) -> None:
        tap, domain = f"vnet2{number}", DOMAIN.format(number)
        for _ in range(20):
            handle = open_tap(tap)
            gate.install(PATHS, domain, "nftables", "nftables", (), [promise(tap)])
            assert NFTABLES.missing(promise(tap)) == ""
            gate.uninstall(PATHS, domain, [tap])
            os.close(handle)

    with ThreadPoolExecutor() as pool:
        list(pool.map(comes_and_goes, range(2)))

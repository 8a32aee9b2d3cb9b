# SPDX-License-Identifier: GPL-2.0-or-later
"""nft's library as one process keeps it: it knows nothing but what the kernel has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.command import run
from tests.host.tap import open_tap
from virtwarden.errors import CommandError
from virtwarden.system.nft import accepts, nft

TABLE = "netdev nft-test"
LIST = f"list table {TABLE}"


def by_another(words: str) -> str:
    return run("nft", words).stdout


@pytest.fixture(autouse=True)
def table() -> Iterator[None]:
    nft(f"add table {TABLE}")
    yield
    by_another(f"delete table {TABLE}")


def test_what_others_change_between_two_calls_is_seen() -> None:
    nft(f"add chain {TABLE} one\nadd rule {TABLE} one drop")
    assert "drop" in nft(LIST)
    by_another(f"flush chain {TABLE} one")
    assert "drop" not in nft(f"list chain {TABLE} one")
    by_another(f"add chain {TABLE} two")
    assert nft("list chains netdev").count("chain ") == 2
    by_another(f"delete chain {TABLE} one")
    with pytest.raises(CommandError):
        nft(f"list chain {TABLE} one")
    nft(f"create chain {TABLE} one")
    assert nft(LIST) == by_another(LIST)


def test_what_goes_with_its_tap_and_by_no_transaction_is_seen() -> None:
    """Kernels before 6.16 take the chain away with it, later ones leave it bound to nothing."""
    tap = open_tap("vnet1")
    hook = 'type filter hook ingress device "vnet1" priority 0; policy accept;'
    chain = f"create chain {TABLE} one {{ {hook} }}"
    nft(chain)
    assert "vnet1" in nft(LIST)
    os.close(tap)
    assert nft(LIST) == by_another(LIST)
    nft(f"add chain {TABLE} one\ndelete chain {TABLE} one")
    assert "chain" not in nft(LIST)


def test_after_an_error_all_goes_on() -> None:
    for wrong in ("add rule", f"list chain {TABLE} none", f"create table {TABLE}"):
        with pytest.raises(CommandError):
            nft(wrong)
        nft(f"add chain {TABLE} one")
        assert nft(LIST) == by_another(LIST)
        nft(f"delete chain {TABLE} one")


def test_a_transaction_that_fails_or_is_only_tried_leaves_nothing_behind() -> None:
    created = f"create chain {TABLE} one\nadd rule {TABLE} one drop\n"
    before = nft(LIST)
    assert accepts(created)
    with pytest.raises(CommandError):
        nft(f"{created}delete chain {TABLE} none")
    assert nft(LIST) == before
    nft(created)
    assert nft(LIST) == by_another(LIST) != before
    assert not accepts(created)


def test_numbers_are_asked_for_call_by_call() -> None:
    nft(f"add chain {TABLE} one\nadd rule {TABLE} one tcp dport 22 meta l4proto tcp")
    names = nft(LIST)
    assert nft(LIST, numeric=True) != names
    assert nft(LIST) == names


def test_a_process_has_a_socket_of_its_own() -> None:
    """Or two would take each other's answers."""

    def sockets() -> set[str]:
        handles = [*Path("/proc/self/fd").iterdir()]
        return {str(handle.readlink()) for handle in handles if handle.is_socket()}

    nft(LIST)
    before = sockets()
    assert nft(LIST)
    assert sockets() == before
    child = os.fork()
    if child == 0:
        code = 1
        try:
            listed = nft(LIST)
            code = 0 if listed and len(sockets() - before) == 1 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert nft(LIST)

# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel counts at taps is added up, and told now and then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from virtwarden import drops
from virtwarden.drops import Drops, Reading
from virtwarden.paths import Paths

MAC = "52:54:00:00:00:01"
Told = list[tuple[str, str, int]]


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(run=tmp_path)


@pytest.fixture
def pass_seconds(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    clock = [1000.0]
    monkeypatch.setattr(drops.time, "time", lambda: clock[0])

    def pass_some(seconds: float) -> None:
        clock[0] += seconds

    return pass_some


def reading(*, index: int = 7, domain: str = "a", nic: str = MAC, **counts: int) -> Reading:
    return Reading(domain, nic, index, counts)


def frames(found: list[Drops]) -> dict[str, int]:
    return {each.promise: each.frames for each in found}


def told(paths: Paths) -> Told:
    return [
        (each[0].domain, each[0].promise, sum(e.frames for e in each))
        for each in drops.take_untold(paths)
    ]


def test_a_count_that_grows_counts_once(paths: Paths) -> None:
    drops.record(paths, [reading(mac=3)])
    drops.record(paths, [reading(mac=3)])
    assert frames(drops.record(paths, [reading(mac=5, arp=1)])) == {"mac": 5, "arp": 1}


def test_rules_that_are_laid_anew_begin_at_nothing(paths: Paths) -> None:
    drops.record(paths, [reading(mac=3)])
    drops.record(paths, [reading(mac=0)])
    assert frames(drops.record(paths, [reading(mac=4)])) == {"mac": 7}


def test_another_tap_of_the_same_nic_adds_to_it(paths: Paths) -> None:
    drops.record(paths, [reading(mac=3)])
    assert frames(drops.record(paths, [reading(index=8, mac=3)])) == {"mac": 6}


def test_a_look_at_one_tap_forgets_no_other(paths: Paths) -> None:
    drops.record(paths, [reading(mac=3), reading(index=8, domain="b", mac=2)], are_all=True)
    drops.record(paths, [reading(mac=3)])
    found = drops.record(paths, [reading(mac=3), reading(index=8, domain="b", mac=2)], are_all=True)
    assert sorted(each.frames for each in found) == [2, 3]


def test_the_latest_comes_first(paths: Paths, pass_seconds: Callable[[float], None]) -> None:
    drops.record(paths, [reading(mac=3)])
    pass_seconds(1)
    found = drops.record(paths, [reading(mac=3, arp=1)])
    assert [each.promise for each in found] == ["arp", "mac"]
    assert [each.last for each in found] == [1001.0, 1000.0]


def test_a_vm_and_promise_is_told_once_a_minute_with_all_since(
    paths: Paths, pass_seconds: Callable[[float], None]
) -> None:
    drops.record(paths, [reading(mac=3, arp=1)])
    assert sorted(told(paths)) == [("a", "arp", 1), ("a", "mac", 3)]
    pass_seconds(30)
    drops.record(paths, [reading(mac=10, arp=1)])
    assert told(paths) == []
    pass_seconds(31)
    drops.record(paths, [reading(mac=11, arp=1)])
    assert told(paths) == [("a", "mac", 8)]
    pass_seconds(100)
    assert told(paths) == []


def test_the_nics_of_a_vm_are_told_together(paths: Paths) -> None:
    drops.record(paths, [reading(mac=3), reading(index=8, nic="52:54:00:00:00:02", mac=2)])
    assert told(paths) == [("a", "mac", 5)]


def test_a_look_adds_up_and_writes_nothing(paths: Paths) -> None:
    assert frames(drops.look(paths, [reading(mac=3)])) == {"mac": 3}
    assert not paths.drops.exists()
    drops.record(paths, [reading(mac=3)])
    assert frames(drops.look(paths, [reading(mac=5)])) == {"mac": 5}
    assert frames(drops.record(paths, [reading(mac=3)])) == {"mac": 3}

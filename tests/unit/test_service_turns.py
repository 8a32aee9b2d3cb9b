# SPDX-License-Identifier: GPL-2.0-or-later
"""Many starts at once take turns, and none ever depends on getting one."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from virtwarden.paths import Paths
from virtwarden.service import turns as module
from virtwarden.service.turns import Turns


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return replace(Paths(), run=tmp_path)


@pytest.fixture
def turns(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Turns:
    """Turns for two, of whom nobody waits."""
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0)
    return Turns(paths, at_once=2)


def free(turns: Turns) -> int:
    names = iter(f"probe{number}" for number in range(10))
    taken = []
    while turns.take(name := next(names)):
        taken.append(name)
    for name in taken:
        turns.end(name)
    return len(taken)


def test_so_many_have_a_turn_and_the_next_goes_without(turns: Turns) -> None:
    assert [turns.take(name) for name in ("a", "b", "c")] == [True, True, False]
    turns.end("a")
    assert turns.take("c")


def test_who_waits_goes_on_when_another_has_started(paths: Paths) -> None:
    turns = Turns(paths, at_once=1)
    assert turns.take("a")
    waiting = threading.Thread(target=turns.end, args=("a",))
    waiting.start()
    assert turns.take("b")
    waiting.join()


@pytest.mark.parametrize(
    "end",
    [
        lambda turns: turns.end("a"),
        lambda turns: (turns.end("a"), turns.end("a")),
        lambda turns: (turns.end("a"), turns.end("stranger")),
    ],
)
def test_a_turn_ends_once_whoever_ends_it(turns: Turns, end: Callable[[Turns], object]) -> None:
    turns.take("a")
    end(turns)
    assert free(turns) == 2


def test_who_begins_anew_has_one_turn(turns: Turns) -> None:
    assert turns.take("a")
    assert not turns.take("a")
    assert free(turns) == 1


def test_where_there_is_no_place_for_marks_nobody_waits(tmp_path: Path) -> None:
    (tmp_path / "turns").write_text("")
    turns = Turns(replace(Paths(), run=tmp_path), at_once=1)
    assert [turns.take(name) for name in ("a", "b")] == [False] * 2


def test_a_turn_whose_end_nobody_told_is_taken_back(turns: Turns, paths: Paths) -> None:
    turns.take("a")
    turns.take("b")
    for mark in paths.turns.iterdir():
        mark.write_text("0")
    assert not turns.take("c")
    assert free(turns) == 2


def test_a_turn_in_whose_hands_somebody_died_comes_back_once(turns: Turns) -> None:
    assert turns._get()
    assert turns._get()
    assert [turns.take(name) for name in ("a", "b", "c")] == [False, True, True]
    turns.end("b")
    turns.end("c")
    assert free(turns) == 2


def test_what_a_former_service_left_takes_no_turn(turns: Turns, paths: Paths) -> None:
    turns.take("a")
    assert free(Turns(paths, at_once=2)) == 2


def test_any_name_that_libvirt_allows_can_have_a_turn(turns: Turns) -> None:
    assert turns.take("\udcff" + "x" * 1000)
    assert turns.take("../../etc/passwd")


def test_where_no_mark_can_be_made_nobody_has_a_turn_and_nobody_waits(
    turns: Turns, paths: Paths
) -> None:
    paths.turns.rmdir()
    assert [turns.take(name) for name in ("a", "b", "c")] == [False] * 3


def test_where_the_marks_are_gone_who_waits_still_goes_without(turns: Turns, paths: Paths) -> None:
    turns.take("a")
    turns.take("b")
    shutil.rmtree(paths.turns)
    assert not turns.take("c")

# SPDX-License-Identifier: GPL-2.0-or-later
"""The journal: written before the act, walked backwards, and never lost for one failure."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import steps
import xmls
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from steps import LastingStep, Step, World

from virtwarden.changes import KINDS, Scope, journal
from virtwarden.errors import HostError, JournalError
from virtwarden.paths import Paths

DOMAIN = xmls.UUID


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield from steps.made(monkeypatch)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(state=tmp_path / "state", run=tmp_path / "run")
    made.domain_state(DOMAIN).mkdir(parents=True)
    return made


def file_of(paths: Paths, scope: Scope = Scope.RUN) -> Path:
    return paths.domain_state(DOMAIN) / f"{scope.value}.journal"


def names(paths: Paths, scope: Scope = Scope.RUN) -> list[str]:
    return [record.change.describe() for record in journal.records(paths, DOMAIN, scope)]


def perform(paths: Paths, *letters: str) -> None:
    journal.perform(paths, DOMAIN, [Step(letter) for letter in letters])


# Writing


def test_each_change_is_written_down_before_it_is_done(
    paths: Paths, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def apply(self: Step, *_: Any) -> None:
        seen.append(names(paths))

    monkeypatch.setattr(Step, "apply", apply)
    perform(paths, "a", "b")
    assert seen == [["do a"], ["do a", "do b"]]


def test_a_change_is_captured_after_those_before_it_are_done(paths: Paths, world: World) -> None:
    perform(paths, "a", "b")
    assert world.done == ["capture a", "apply a", "capture b", "apply b"]


def test_a_second_plan_goes_on_where_the_first_one_ended(paths: Paths, world: World) -> None:
    perform(paths, "a")
    perform(paths, "b")
    assert names(paths) == ["do a", "do b"]
    assert len(file_of(paths).read_text().splitlines()) == 3


@pytest.mark.parametrize("stage", ["capture", "apply"])
def test_what_fails_is_told_and_what_was_done_stays_written_down(
    paths: Paths, world: World, stage: str
) -> None:
    world.fails[f"{stage} b"] = steps.broken()
    with pytest.raises(HostError, match="it will not"):
        perform(paths, "a", "b", "c")
    assert names(paths) == (["do a"] if stage == "capture" else ["do a", "do b"])
    assert "apply c" not in world.done


def test_what_outlives_the_run_has_a_journal_of_its_own(paths: Paths, world: World) -> None:
    journal.perform(paths, DOMAIN, [LastingStep("user"), Step("disk")])
    assert names(paths) == ["do disk"]
    assert names(paths, Scope.ENROLMENT) == ["do user"]
    journal.undo(paths, DOMAIN)
    assert names(paths, Scope.ENROLMENT) == ["do user"]


def test_a_journal_is_roots_alone_to_read(paths: Paths, world: World) -> None:
    perform(paths, "a")
    assert file_of(paths).stat().st_mode & 0o777 == 0o600


def test_a_durable_change_is_on_the_disk_before_it_is_done(
    paths: Paths, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: world.done.append("fsync"))
    perform(paths, "a")
    assert world.done[-2:] == ["fsync", "apply a"]


def test_every_kind_is_known_under_its_own_name() -> None:
    assert {name: kind.__name__ for name, kind in KINDS.items()} == {name: name for name in KINDS}


# A full disk


def test_a_short_write_stops_before_the_act_and_is_mended_by_the_next(
    paths: Paths, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    perform(paths, "a")
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda handle, content: write(handle, content[:10]))
        with pytest.raises(JournalError, match="disk is full; fix: df"):
            perform(paths, "b")
    assert "apply b" not in world.done
    assert names(paths) == ["do a"]
    perform(paths, "c")
    assert names(paths) == ["do a", "do c"]


def test_an_error_of_the_disk_stops_before_the_act(
    paths: Paths, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    perform(paths, "a")
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(JournalError, match="No space left on device; fix: df"):
        perform(paths, "b")
    assert "apply b" not in world.done


# Undoing


def test_what_was_done_is_undone_backwards_and_the_journal_goes(paths: Paths, world: World) -> None:
    perform(paths, "a", "b", "c")
    world.done.clear()
    assert journal.undo(paths, DOMAIN) == []
    assert world.done == ["undo c", "undo b", "undo a"]
    assert not file_of(paths).exists()
    assert journal.undo(paths, DOMAIN) == []


def test_what_was_left_alone_is_reported(paths: Paths, world: World) -> None:
    perform(paths, "a", "b")
    world.reports["a"] = "a is another one by now"
    assert journal.undo(paths, DOMAIN) == ["a is another one by now"]
    assert not file_of(paths).exists()


@pytest.mark.parametrize(
    "error",
    [
        steps.broken(),
        OSError(errno.EIO, "Input/output error"),
        KeyError("a field of another version"),
        AttributeError("a bug"),
        ZeroDivisionError("a bug"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_undo_that_fails_keeps_its_record_and_no_other_from_its_turn(
    paths: Paths, world: World, error: Exception
) -> None:
    perform(paths, "a", "b", "c")
    world.fails["undo b"] = error
    with pytest.raises(JournalError) as failed:
        journal.undo(paths, DOMAIN)
    assert world.done[-2:] == ["undo c", "undo a"]
    assert names(paths) == ["do b"]
    line = str(failed.value)
    assert line.startswith("1 changes could not be undone, the first: do b: ")
    assert line.endswith(f"fix: virt-warden recover {DOMAIN}")
    world.fails.clear()
    world.done.clear()
    journal.undo(paths, DOMAIN)
    assert world.done == ["undo b"]


def test_records_of_failed_undos_keep_their_order(paths: Paths, world: World) -> None:
    perform(paths, *"abcd")
    world.fails = {"undo a": steps.broken(), "undo c": steps.broken()}
    with pytest.raises(JournalError, match="2 changes"):
        journal.undo(paths, DOMAIN)
    assert names(paths) == ["do a", "do c"]
    perform(paths, "e")
    assert names(paths) == ["do a", "do c", "do e"]


def test_without_a_journal_there_is_nothing_to_undo(paths: Paths, world: World) -> None:
    assert journal.undo(paths, DOMAIN) == []
    assert journal.undo(paths, xmls.OTHER) == []
    assert journal.records(paths, DOMAIN) == []


# A journal that a crash, or somebody, damaged


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_a_last_line_that_was_cut_off_was_never_acted_upon(
    paths: Paths, world: World, cut: int
) -> None:
    perform(paths, "a", "b")
    file_of(paths).write_bytes(file_of(paths).read_bytes()[:-cut])
    assert names(paths) == ["do a"]
    perform(paths, "c")
    assert names(paths) == ["do a", "do c"]


@given(st.integers(min_value=0, max_value=400))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_wherever_a_crash_cut_it_the_whole_lines_are_read(
    paths: Paths, world: World, length: int
) -> None:
    file_of(paths).unlink(missing_ok=True)
    perform(paths, "a", "b", "c")
    whole = file_of(paths).read_bytes()
    file_of(paths).write_bytes(whole[:length])
    kept = max(whole[:length].count(b"\n") - 1, 0)
    assert names(paths) == ["do a", "do b", "do c"][:kept]


def test_an_empty_journal_is_none(paths: Paths, world: World) -> None:
    file_of(paths).touch()
    assert journal.records(paths, DOMAIN) == []
    perform(paths, "a")
    assert names(paths) == ["do a"]


HEADER = '{"format": 1, "domain": "x"}\n'
STEP = json.dumps({"kind": "Step", "before": {}, "change": {"name": "a"}})


@pytest.mark.parametrize(
    "content",
    [
        "no json\n",
        "5\n",
        "[]\n",
        "{}\n",
        HEADER + "no json\n",
        HEADER + "5\n",
        HEADER + "[]\n",
        HEADER + "{}\n",
        HEADER + STEP.replace("Step", "NoSuchKind") + "\n",
        HEADER + STEP.replace("name", "nmae") + "\n",
        HEADER + STEP.replace('"before": {}, ', "") + "\n",
        HEADER + STEP.replace('{"name": "a"}', "5") + "\n",
        HEADER + "\n" + STEP + "\n",
        HEADER + "[" * 100_000 + "\n",
        HEADER + "\0" * 512 + "\n",
        b"\xff\xfe\n",
    ],
    ids=lambda content: str(content)[-40:],
)
def test_a_journal_that_cannot_be_understood_is_not_guessed_at(
    paths: Paths, world: World, content: str | bytes
) -> None:
    raw = content if isinstance(content, bytes) else content.encode()
    file_of(paths).write_bytes(raw)
    with pytest.raises(JournalError) as failed:
        journal.undo(paths, DOMAIN)
    assert f"{file_of(paths)} cannot be read" in str(failed.value)
    assert f"then: rm {file_of(paths)}" in str(failed.value)
    assert world.done == []
    assert file_of(paths).read_bytes() == raw


def test_a_journal_of_another_version_is_left_to_it(paths: Paths, world: World) -> None:
    file_of(paths).write_text('{"format": 2, "domain": "x"}\n')
    with pytest.raises(JournalError, match="has format 2, this virt-warden knows 1; fix: "):
        journal.records(paths, DOMAIN)


# Who has one


def test_domains_are_known_by_their_journals(paths: Paths) -> None:
    paths.domain_state(xmls.OTHER).mkdir()
    assert journal.known_domains(paths) == sorted([DOMAIN, xmls.OTHER])
    assert journal.known_domains(Paths(state=paths.state / "none")) == []

# SPDX-License-Identifier: GPL-2.0-or-later
"""The lifecycle: which guards are asked, in which order, and what a refusal or a failure means."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import steps
import xmls
from fake_host import FakeHost, account_of, case_of, process_of, rules
from steps import LastingStep, Step, WholeStep, World

from virtwarden import lifecycle
from virtwarden.changes import Scope, TakeDirectory, journal
from virtwarden.errors import HostError, JournalError, Refusal, WardenError
from virtwarden.guards import boot, console, host, identity, network, sandbox, storage
from virtwarden.guards.base import Case, Op
from virtwarden.paths import Paths
from virtwarden.policy import Mode
from virtwarden.system import users

ORDER = [
    *("identity", "luks", "encryption", "storage", "boot", "zones", "network", "reach", "console"),
    *("host", "mac", "sandbox"),
]
MODES = [Mode.ENFORCING, Mode.PERMISSIVE, Mode.DISABLED]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Guards that have nothing against anybody, and plan a step each."""
    for guard in lifecycle.GUARDS:
        name = guard.NAME
        monkeypatch.setattr(guard, "review", lambda case: [])
        plan = [Step(name)]
        monkeypatch.setattr(guard, "plan", lambda case, plan=plan: planned(case, plan))
        monkeypatch.setattr(guard, "verify", lambda case, process: [])
    monkeypatch.setattr(os, "fchown", lambda *_: None)  # to root, who a developer need not be
    yield from steps.made(monkeypatch)


def planned(case: Case, plan: list[Step], ahead: tuple[Step, ...] = ()) -> list[Step]:
    """What a guard plans, and what of it, or else, ahead."""
    return [*ahead] if case.op is Op.AHEAD else plan


def plan_ahead(
    monkeypatch: pytest.MonkeyPatch, *ahead: str, then: tuple[Step, ...] = (Step("console"),)
) -> None:
    """Have the console's guard know by `prepare` what it plans at `start`."""
    steps_ahead = tuple(map(WholeStep, ahead))
    monkeypatch.setattr(console, "plan", lambda case: planned(case, [*then], steps_ahead))


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """A domain whose QEMU runs."""
    paths = Paths(state=tmp_path / "state", run=tmp_path / "run", libvirt_run=tmp_path / "libvirt")
    paths.cell(xmls.UUID).mkdir(parents=True)
    paths.domain_state(xmls.UUID).mkdir(parents=True)  # as the lock makes it, which the hook holds
    paths.libvirt_run.mkdir()
    (paths.libvirt_run / "web01.pid").write_text("4711")
    account = account_of("vmw-web01", xmls.UUID)
    facts = FakeHost(accounts={account.name: account})
    monkeypatch.setattr(lifecycle.process, "read", lambda pid: process_of(account, pid=pid))
    return case_of(xmls.domain(), rules(), facts, paths=paths)


def under(case: Case, mode: Mode) -> Case:
    return replace(case, rules=rules(mode=mode))


def refuse(monkeypatch: pytest.MonkeyPatch, *guards: ModuleType) -> None:
    for guard in guards:
        reason = Refusal(f"{guard.NAME} minds", where="policy.toml:3", fix="mend it")
        monkeypatch.setattr(guard, "review", lambda case, reason=reason: [reason])


def applied(world: World) -> list[str]:
    return [act.split()[1] for act in world.done if act.startswith("apply")]


def left(case: Case) -> list[str]:
    return [r.change.describe() for r in journal.records(case.paths, case.domain.uuid)]


def leave_behind(case: Case) -> None:
    """What the hook leaves when it is killed."""
    with journal.locked(case.paths, case.domain.uuid):
        journal.perform(case.paths, case.domain.uuid, [Step("old")])


# Order


def test_the_guards_are_asked_in_the_order_that_is_told() -> None:
    assert [guard.NAME for guard in lifecycle.GUARDS] == ORDER


def test_the_user_is_made_first_and_the_ticket_written_last(case: Case, world: World) -> None:
    lifecycle.prepare(case)
    assert applied(world) == ORDER


def test_a_change_that_two_guards_need_is_done_once(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [Step("identity"), Step("storage")]
    monkeypatch.setattr(storage, "plan", lambda case: planned(case, both))
    lifecycle.prepare(case)
    assert applied(world) == ORDER


@pytest.mark.parametrize("mode", MODES)
def test_what_a_former_life_left_is_undone_first(case: Case, world: World, mode: Mode) -> None:
    leave_behind(case)
    world.done.clear()
    lifecycle.prepare(under(case, mode))
    assert world.done[0] == "undo old"
    assert "do old" not in left(case)


def test_start_goes_on_with_what_prepare_did(case: Case, world: World) -> None:
    lifecycle.prepare(case)
    lifecycle.start(replace(case, op=Op.START))
    assert applied(world) == ORDER * 2
    assert not [act for act in world.done if act.startswith("undo")]


# Ahead


def test_what_start_will_need_is_done_when_nobody_waits_for_prepare_any_more(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_ahead(monkeypatch, "ahead")
    lifecycle.prepare(case, lambda: world.done.append("dismiss"))
    assert world.done[-3:] == ["dismiss", "capture ahead", "apply ahead"]
    assert left(case)[-1] == "do ahead"  # to be undone with all the rest


@pytest.mark.parametrize("is_whole", [True, False])
def test_start_does_what_was_not_done_to_its_end_ahead(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch, is_whole: bool
) -> None:
    plan_ahead(monkeypatch, "certificate", then=(WholeStep("certificate"), Step("other")))
    lifecycle.prepare(case)
    world.torn = set() if is_whole else {"certificate"}
    world.done.clear()
    lifecycle.start(replace(case, op=Op.START))
    assert ("certificate" in applied(world)) is not is_whole
    assert "other" in applied(world)


@pytest.mark.parametrize("error", [steps.broken(), OSError(28, "full"), ValueError("a bug")])
def test_what_cannot_be_done_ahead_keeps_nobody_from_the_start_that_does_it(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    plan_ahead(monkeypatch, "console", then=())
    prepared = [*ORDER]
    world.fails["apply console"] = error
    lifecycle.prepare(case)
    prepared.remove("console")
    assert applied(world) == prepared
    assert "do console" in left(case)  # it was begun, and is to be undone
    plan_ahead(monkeypatch, then=(WholeStep("console"),))
    world.torn = {"console"}
    with pytest.raises(type(error)):
        lifecycle.start(replace(case, op=Op.START))
    assert left(case) == []


@pytest.mark.parametrize("mode", [Mode.PERMISSIVE, Mode.DISABLED])
def test_nothing_is_done_ahead_where_guards_may_have_been_left_out(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    plan_ahead(monkeypatch, "ahead")
    lifecycle.prepare(under(case, mode))
    assert "ahead" not in applied(world)


# Enforcing


@pytest.mark.parametrize("guard", lifecycle.GUARDS, ids=lambda guard: guard.NAME)
def test_enforcing_one_refusal_stops_all(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch, guard: ModuleType
) -> None:
    refuse(monkeypatch, guard)
    with pytest.raises(Refusal) as refused:
        lifecycle.prepare(case)
    assert str(refused.value) == f"policy.toml:3: {guard.NAME} minds; fix: mend it"
    assert world.done == []
    assert left(case) == []


def test_the_first_of_several_refusals_is_told_with_where_to_find_the_others(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, storage, console, sandbox)
    with pytest.raises(Refusal) as refused:
        lifecycle.prepare(case)
    assert str(refused.value) == (
        "policy.toml:3: storage minds; fix: mend it (and 2 more: virt-warden explain web01)"
    )


@pytest.mark.parametrize("failing", ORDER)
@pytest.mark.parametrize("stage", ["capture", "apply"])
def test_enforcing_a_guard_that_fails_lowers_all_that_were_raised(
    case: Case, world: World, failing: str, stage: str
) -> None:
    world.fails[f"{stage} {failing}"] = steps.broken("the disk is full")
    with pytest.raises(HostError, match="the disk is full"):
        lifecycle.prepare(case)
    undone = [act.split()[1] for act in world.done if act.startswith("undo")]
    begun = ORDER[: ORDER.index(failing) + (stage == "apply")]
    assert undone == begun[::-1]
    assert left(case) == []


def test_a_refusal_at_the_start_leaves_the_undo_to_the_release(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libvirt calls it for a refused start as well."""
    lifecycle.prepare(case)
    refuse(monkeypatch, network)
    with pytest.raises(Refusal):
        lifecycle.start(replace(case, op=Op.START))
    lifecycle.release(case.paths, case.domain.uuid, "web01")
    assert left(case) == []


def test_a_bug_in_a_change_undoes_what_was_done_before_it(case: Case, world: World) -> None:
    world.fails["apply network"] = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        lifecycle.prepare(case)
    assert left(case) == []


def test_where_the_undo_fails_too_the_first_failure_is_told_and_the_other_logged(
    case: Case, world: World, logged: list[str]
) -> None:
    world.fails["apply network"] = steps.broken("the disk is full")
    world.fails["undo storage"] = steps.broken("the disk is still full")
    with pytest.raises(HostError, match="the disk is full"):
        lifecycle.prepare(case)
    assert left(case) == ["do storage"]
    assert any("event=left-behind" in line and "still full" in line for line in logged)


def begin_its_user(case: Case, monkeypatch: pytest.MonkeyPatch) -> Case:
    """The case where its user was begun by a hook that was killed meanwhile."""
    with journal.locked(case.paths, case.domain.uuid):
        journal.perform(case.paths, case.domain.uuid, [LastingStep("user")])
    monkeypatch.setattr(users, "account_of", lambda domain: None)
    return replace(case, facts=FakeHost())


def test_a_user_that_was_only_begun_is_undone_before_it_is_made_anew(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = begin_its_user(case, monkeypatch)
    world.done.clear()
    lifecycle.prepare(case)
    assert world.done[0] == "undo user"


def test_a_user_whose_making_fails_is_undone_at_once(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = replace(case, facts=FakeHost())
    monkeypatch.setattr(users, "account_of", lambda domain: None)
    monkeypatch.setattr(identity, "plan", lambda case: [LastingStep("user")])
    world.fails["apply user"] = steps.broken("cannot lock /etc/passwd")
    with pytest.raises(HostError, match="cannot lock"):
        lifecycle.prepare(case)
    assert world.done[-1] == "undo user"
    assert journal.records(case.paths, case.domain.uuid, Scope.ENROLMENT) == []


def test_a_user_that_is_whole_stays_whatever_the_label_says_and_whatever_fails(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = case.account
    case = begin_its_user(case, monkeypatch)
    monkeypatch.setattr(users, "account_of", lambda domain: account)
    world.fails["apply network"] = steps.broken()
    with pytest.raises(HostError):
        lifecycle.prepare(case)
    assert "undo user" not in world.done


def test_enforcing_what_a_former_life_left_for_good_refuses_the_start(
    case: Case, world: World
) -> None:
    leave_behind(case)
    world.fails["undo old"] = steps.broken()
    with pytest.raises(JournalError, match="virt-warden recover"):
        lifecycle.prepare(case)
    assert applied(world) == ["old"]


# Permissive


def test_permissive_logs_what_it_would_refuse_and_raises_the_others(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    refuse(monkeypatch, storage, host)
    lifecycle.prepare(under(case, Mode.PERMISSIVE))
    assert applied(world) == [name for name in ORDER if name not in ("storage", "host")]
    told = [line for line in logged if "event=would-refuse" in line]
    assert len(told) == 2
    assert all("domain=web01" in line and "fix: mend it" in line for line in told)


@pytest.mark.parametrize("guard", [boot, network, console, sandbox], ids=lambda guard: guard.NAME)
def test_permissive_wrapper_and_gate_get_what_they_need_all_the_same(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch, guard: ModuleType
) -> None:
    refuse(monkeypatch, guard)
    lifecycle.prepare(under(case, Mode.PERMISSIVE))
    assert applied(world) == ORDER


def test_permissive_without_a_user_of_its_own_only_the_network_is_guarded(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, identity)
    lifecycle.prepare(under(case, Mode.PERMISSIVE))
    assert applied(world) == ["zones", "network"]


@pytest.mark.parametrize("failing", ORDER)
def test_permissive_a_guard_that_fails_is_logged_and_the_others_go_on(
    case: Case, world: World, logged: list[str], failing: str
) -> None:
    world.fails[f"apply {failing}"] = steps.broken("the disk is full")
    lifecycle.prepare(under(case, Mode.PERMISSIVE))
    assert applied(world) == [name for name in ORDER if name != failing]
    assert any("the disk is full" in line for line in logged)
    assert f"do {failing}" in left(case)


def test_permissive_a_plan_that_fails_is_logged(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    def plan(case: Case) -> list[Any]:
        raise steps.broken("no backend works")

    monkeypatch.setattr(network, "plan", plan)
    lifecycle.prepare(under(case, Mode.PERMISSIVE))
    assert "network" not in applied(world)
    assert any("no backend works" in line for line in logged)


@pytest.mark.parametrize("mode", [Mode.PERMISSIVE, Mode.DISABLED])
def test_outside_enforcing_a_failed_undo_of_a_former_life_refuses_nothing(
    case: Case, world: World, logged: list[str], mode: Mode
) -> None:
    leave_behind(case)
    world.fails["undo old"] = steps.broken()
    lifecycle.prepare(under(case, mode))
    assert "identity" in applied(world)
    assert left(case)[0] == "do old"
    assert any("event=would-refuse" in line and "recover" in line for line in logged)


# Disabled


def test_disabled_does_the_indispensable_and_says_nothing(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    refuse(monkeypatch, storage, network, console, host)
    lifecycle.prepare(under(case, Mode.DISABLED))
    assert applied(world) == ["identity", "luks", "boot", "network", "sandbox"]
    assert logged == []


def test_disabled_a_domain_that_is_not_enrolled_is_left_alone_but_for_the_gate(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, identity)
    lifecycle.prepare(under(case, Mode.DISABLED))
    assert applied(world) == ["network"]


# Started, reconnect


def test_whoever_waits_is_dismissed_when_all_is_taken_back_and_before_it_is_checked(
    world: World, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "verify", lambda case, process: world.done.append("verify") or [])
    lifecycle.started(replace(case, op=Op.STARTED), lambda: world.done.append("dismiss"))
    taken_back = [act for act in world.done if act.startswith("apply")]
    assert world.done.index("dismiss") > world.done.index(taken_back[-1])
    assert world.done.index("dismiss") < world.done.index("verify")


def test_a_start_without_a_breach_is_one_line_in_the_log(
    case: Case, world: World, logged: list[str]
) -> None:
    lifecycle.started(replace(case, op=Op.STARTED))
    (line,) = logged
    for field in ("event=verified", "domain=web01", "uid=70000", "pid=4711", "user=vmw-web01"):
        assert field in line
    assert f"guards={','.join(ORDER)}" in line


@pytest.mark.parametrize(("mode", "level"), [(Mode.ENFORCING, "2"), (Mode.PERMISSIVE, "4")])
def test_a_breach_is_critical_where_the_mode_is_enforcing(
    case: Case,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    logged: list[str],
    mode: Mode,
    level: str,
) -> None:
    monkeypatch.setattr(storage, "verify", lambda case, process: ["the disk is open"])
    lifecycle.started(replace(under(case, mode), op=Op.STARTED))
    (line,) = logged
    assert line.startswith(f"{level} event=breach")
    assert 'promise="storage: the disk is open"' in line


def test_what_cannot_be_taken_back_is_a_breach_and_all_else_is_checked(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    world.fails["apply storage"] = steps.broken("the kernel image is gone")
    monkeypatch.setattr(network, "verify", lambda case, process: ["vnet0 has no rules"])
    lifecycle.started(replace(case, op=Op.STARTED))
    of_storage, of_network = logged
    assert 'promise="storage: ' in of_storage
    assert "the kernel image is gone" in of_storage
    assert 'promise="network: ' in of_network
    assert applied(world)[-1] == "sandbox"


def test_a_domain_that_has_nothing_of_ours_is_reported_on_like_any_other(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    """One that is not enrolled and started all the same, where the mode is permissive."""
    refuse(monkeypatch, identity)
    monkeypatch.setattr(identity, "verify", lambda case, process: ["it has no user"])
    Path(case.cell).rmdir()
    lifecycle.started(replace(under(case, Mode.PERMISSIVE), op=Op.STARTED))
    assert any("event=breach" in line and "identity: it has no user" in line for line in logged)


def test_a_running_domain_is_still_taken_care_of_though_it_would_be_refused_now(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, network)
    lifecycle.started(replace(case, op=Op.STARTED))
    assert applied(world) == ORDER


@pytest.mark.parametrize("content", ["", "no number", None])
def test_a_process_that_cannot_be_found_is_a_breach(
    case: Case, world: World, content: str | None
) -> None:
    file = case.paths.libvirt_run / "web01.pid"
    file.unlink()
    if content is not None:
        file.write_text(content)
    (breach,) = lifecycle.verify(case)
    assert breach.startswith("sandbox: QEMU's process cannot be looked at")


@pytest.mark.parametrize("error", [HostError("no namespace"), OSError("no namespace")])
def test_a_guard_that_cannot_check_keeps_no_other_from_it(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """nftables' listing is compared in a network namespace, and a host may allow none."""

    def cannot(*_: object) -> list[str]:
        raise error

    monkeypatch.setattr(console, "verify", cannot)
    monkeypatch.setattr(sandbox, "verify", lambda case, process: ["it runs as root"])
    assert lifecycle.verify(case) == [
        "console: its promises cannot be checked: no namespace",
        "sandbox: it runs as root",
    ]


def test_a_breach_has_nothing_that_a_terminal_obeys(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """status prints it; an escaped guest can execute a file of any name."""
    monkeypatch.setattr(sandbox, "verify", lambda case, process: ["it runs /tmp/\x1b[2J\udc80"])
    assert lifecycle.verify(case) == ["sandbox: it runs /tmp/?[2J?"]


def test_disabled_promises_nothing(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for guard in lifecycle.GUARDS:
        monkeypatch.setattr(guard, "verify", lambda case, process: ["broken"])
    assert lifecycle.verify(under(case, Mode.DISABLED)) == []
    assert len(lifecycle.verify(under(case, Mode.PERMISSIVE))) == len(ORDER)


def test_reconnect_takes_back_what_libvirt_took_again_and_checks(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    for guard in lifecycle.GUARDS:
        monkeypatch.setattr(guard, "plan", lambda case: [])
    monkeypatch.setattr(storage, "plan", lambda case: [Step("storage")])
    monkeypatch.setattr(storage, "verify", lambda case, process: ["the disk is open"])
    lifecycle.reconnect(replace(case, op=Op.STARTED))
    assert world.done == ["capture storage", "apply storage"]
    assert "event=breach" in logged[0]


@pytest.mark.parametrize("has_started", [False, True])
def test_directories_that_qemu_still_needs_for_its_start_are_not_taken_back(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch, has_started: bool
) -> None:
    """A look at all domains may come amid a start."""
    taken = journal.Record(TakeDirectory("/d", 1, 2), {})
    monkeypatch.setattr(journal, "records", lambda *_: [taken] if has_started else [])
    monkeypatch.setattr(FakeHost, "directories_of", lambda *_: (SimpleNamespace(path="/d"),))
    lifecycle.take_back_attached(case)
    assert bool(world.done) is has_started


# Release


def test_release_undoes_all_and_twice_is_harmless(
    case: Case, world: World, logged: list[str]
) -> None:
    lifecycle.prepare(case)
    world.done.clear()
    world.reports["storage"] = "it is another one by now"
    lifecycle.release(case.paths, case.domain.uuid, "web01")
    assert world.done == [f"undo {name}" for name in ORDER[::-1]]
    assert [line.split()[1] for line in logged] == ["event=left-alone", "event=undone"]
    lifecycle.release(case.paths, case.domain.uuid, "web01")
    assert len(world.done) == len(ORDER)
    assert len(logged) == 2


def test_release_needs_nothing_to_have_been_done(case: Case, world: World) -> None:
    lifecycle.release(case.paths, xmls.OTHER, "db01")
    assert world.done == []


def test_no_error_of_ours_is_without_its_kind(world: World) -> None:
    assert issubclass(Refusal, WardenError)
    assert issubclass(JournalError, WardenError)

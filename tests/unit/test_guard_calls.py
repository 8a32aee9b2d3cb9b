# SPDX-License-Identifier: GPL-2.0-or-later
"""Which system calls a domain's QEMU gets: no more than its XML and the policy call for."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import wrapped
import xmls
from fake_host import FakeHost, account_of, case_of, process_of, refusal, refusals, rules

from virtwarden.guards import callgroups, calls, sandbox, ticket
from virtwarden.guards.base import Case, Op
from virtwarden.guards.callgroups import Needs
from virtwarden.paths import Paths
from virtwarden.policy import Mode
from virtwarden.system import seccomp
from virtwarden.system.seccomp import Action, Argument, Rule

ACCOUNT = account_of("vmw-web01", xmls.UUID)
EXCEPTED = {"exceptions": frozenset({"host-devices"})}
PASSED = {"exceptions": frozenset({"qemu-commandline"})}


def case(devices: str = "", **more: Any) -> Case:
    return case_of(xmls.domain(devices), rules(**more), FakeHost(), Op.START)


def needed(devices: str = "", **more: Any) -> set[str]:
    needs = calls.needs_of(case(devices, **more))
    return {field.name for field in fields(Needs) if getattr(needs, field.name)}


@pytest.mark.parametrize(
    ("devices", "more", "expected"),
    [
        ("", {}, set()),
        (xmls.disk(), {}, set()),
        (xmls.vnc(), {}, {"streams"}),
        (xmls.vnc(), {"display": "off"}, set()),
        ("<graphics type='vnc' socket='/run/a'/>", {}, set()),
        ("<graphics type='vnc'><listen type='none'/></graphics>", {}, set()),
        ("<graphics type='spice' port='5901'/>", {}, {"streams"}),
        ("", {"tcp_bind": (49152,)}, {"streams"}),
        ("", {"tcp_connect": (49152,)}, {"streams", "connects"}),
        ("", {"hosts": ("192.0.2.1",)}, {"connects"}),
        ("", {"host_network": "allow"}, {"connects"}),
        (
            "<disk type='network'><source protocol='rbd'/></disk>",
            {},
            {"streams", "connects", "datagrams"},
        ),
        ("<tpm><backend type='emulator'/></tpm>", {}, {"connects"}),
        ("<filesystem><driver type='virtiofs'/></filesystem>", {}, {"connects"}),
        ("<filesystem><source dir='/srv'/></filesystem>", {}, {"shares"}),
        ("<disk><driver io='io_uring'/></disk>", {}, {"io_uring"}),
        ("", EXCEPTED, {"events"}),
        ("", {"allow": ("pci 0000:65:00.0", "usb 046d:c52b")}, {"events"}),
        ("", {"allow": ("pci 0000:65:00.0", "unix-socket /run/a")}, set()),
        ("", PASSED, {field.name for field in fields(Needs)}),
    ],
)
def test_a_domain_needs_what_its_xml_and_the_policy_say(
    devices: str, more: dict[str, Any], expected: set[str]
) -> None:
    assert needed(devices, **more) == expected


@pytest.mark.parametrize("name", sorted({field.name for field in fields(Needs)} - {"streams"}))
def test_each_need_opens_something_and_closes_nothing(name: str) -> None:
    needs = replace(Needs(), **{name: True})
    least, found = _open(Needs()), _open(needs)
    assert least <= found
    if name not in ("hashes", "arguments"):  # they are about what is refused
        assert found > least
    refused = {*callgroups.narrowed(needs, Action.DENY)}
    refused |= {rule for rule in callgroups.allowed(needs) if rule.action is Action.KILL}
    more = {*callgroups.narrowed(Needs(), Action.DENY)}
    more |= {rule for rule in callgroups.allowed(Needs()) if rule.action is Action.KILL}
    assert refused <= more
    assert found > least or refused < more


def _open(needs: Needs) -> set[Rule]:
    return {rule for rule in callgroups.allowed(needs) if rule.action is Action.ALLOW}


def test_no_call_is_both_allowed_and_an_end() -> None:
    for needs in (Needs(), calls.needs_of(case(**PASSED))):
        found = [*callgroups.allowed(needs)]
        whole = [rule.call for rule in found if not rule.arguments]
        assert len(whole) == len({*whole})
        ends = {rule.call for rule in found if rule.action is Action.KILL}
        assert ends.isdisjoint(rule.call for rule in found if rule.action is Action.ALLOW)
        tried = {rule.call for rule in callgroups.silenced(needs)}
        assert tried.isdisjoint(ends)


def test_every_name_is_one_that_libseccomp_knows() -> None:
    """Else a mistake in writing would be a call that nobody gets, or that ends nobody."""
    every = [*callgroups.allowed(calls.needs_of(case(**PASSED)))]
    every += callgroups.silenced(Needs())
    too_new = {"fchmodat2"}
    names = {rule.call for rule in every} - too_new
    library = seccomp._library()
    here = library.Arch()
    assert {name for name in names if library.resolve_syscall(here, name) == -1} == set()


# The filters


@pytest.mark.parametrize("name", [field.name for field in fields(Needs)])
@pytest.mark.parametrize("enforced", [True, False])
def test_filters_of_every_need_can_be_compiled(name: str, enforced: bool) -> None:
    found = calls._filters(replace(Needs(), **{name: True}), is_enforced=enforced)
    assert all(len(code) % 8 == 0 for code, _, _ in found)
    assert len(found) == 2 + (name != "streams") + enforced


def test_a_call_that_libseccomp_does_not_know_is_left_out() -> None:
    honest = [Rule("read", Action.ALLOW, (Argument(0, 7),))]
    unknown = Rule("no_such_call", Action.ALLOW)
    assert seccomp.compiled(Action.KILL, honest) == seccomp.compiled(
        Action.KILL, [*honest, unknown]
    )


def entry(**more: Any) -> Any:
    case_ = case(**more)
    found = json.loads(ticket.render(case_, ACCOUNT))
    wrapped.ticket.parse_ticket(json.dumps(found), xmls.UUID)
    return found["system_calls"]


def test_what_is_refused_is_logged_but_for_what_every_qemu_tries() -> None:
    found = entry()["filters"]
    assert [each["log"] for each in found] == [True, True, True, False]
    assert [each["incoming"] for each in found] == [True, True, False, True]


def test_log_and_permissive_refuse_nothing() -> None:
    logging = entry(system_calls="log")
    assert logging == entry(mode=Mode.PERMISSIVE)
    assert len(logging["filters"]) == 3
    assert logging != entry()


def test_off_and_disabled_set_no_filter() -> None:
    assert entry(system_calls="off") is None
    assert entry(mode=Mode.DISABLED) is None


# Without libseccomp


def bare(**more: Any) -> Case:
    emulator = "/usr/lib/virt-warden/qemu-system-x86_64"
    host = FakeHost(libseccomp=False)
    return case_of(xmls.domain(emulator=emulator), rules(**more), host, Op.PREPARE)


def test_without_libseccomp_the_refusal_names_its_package() -> None:
    line = refusal(sandbox, bare())
    assert "without libseccomp" in line
    assert "apt install python3-seccomp" in line
    assert refusals(sandbox, bare(system_calls="off")) == []
    assert calls.entry(bare(mode=Mode.PERMISSIVE)) is None


# Verify


def breaches(tmp_path: Path, filters: int | None, given: Any, *arguments: str) -> list[str]:
    paths = Paths(run=tmp_path)
    case_ = replace(case(), paths=paths)
    Path(case_.cell).mkdir()
    (Path(case_.cell) / "ticket.json").write_text(json.dumps(given))
    process = process_of(ACCOUNT, seccomp_filters=filters, arguments=arguments)
    return calls.verify(case_, process)


GIVEN = {"system_calls": entry()}


@pytest.mark.parametrize(
    ("filters", "given", "arguments"),
    [
        (5, GIVEN, ()),
        (6, GIVEN, ()),
        (4, GIVEN, ("-incoming", "defer")),
        (None, GIVEN, ()),
        (1, {"system_calls": None}, ()),
        (1, {}, ()),
    ],
)
def test_a_qemu_with_the_filters_of_its_ticket_is_well(
    tmp_path: Path, filters: int | None, given: Any, arguments: tuple[str, ...]
) -> None:
    assert breaches(tmp_path, filters, given, *arguments) == []


def test_a_qemu_with_fewer_is_a_breach(tmp_path: Path) -> None:
    (breach,) = breaches(tmp_path, 4, GIVEN)
    assert "4 of 5 seccomp filters" in breach


def test_one_without_a_ticket_was_promised_none(tmp_path: Path) -> None:
    case_ = replace(case(), paths=Paths(run=tmp_path))
    assert calls.verify(case_, process_of(ACCOUNT, seccomp_filters=1)) == []

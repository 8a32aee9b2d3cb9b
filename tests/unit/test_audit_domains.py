# SPDX-License-Identifier: GPL-2.0-or-later
"""What the audit says of a domain: of its disks while it is off, of its console, of its walls."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import xmls
from fake_host import KVM, UID, FakeHost, account_of, case_of, process_of, rules

from virtwarden import lifecycle
from virtwarden.audit import domains
from virtwarden.audit.item import Check, Item, State
from virtwarden.guards.base import Case, Op
from virtwarden.paths import Paths
from virtwarden.policy import Mode
from virtwarden.system import landlock, process

SVIRT = "system_u:system_r:svirt_t:s0:c1,c2"
UNCONFINED = SVIRT.replace("svirt_t", "unconfined_t")
LABEL = "<seclabel type='dynamic' model='{}'><label>{}</label></seclabel>"
APPARMOR = LABEL.format("apparmor", "libvirt-1")
EVERYWHERE = "0.0.0.0"  # noqa: S104 - what is to be found


def case(devices: str = "", host: FakeHost | None = None, **more: Any) -> Case:
    host = host or FakeHost()
    host.accounts["vmw-web01"] = account_of("vmw-web01", xmls.UUID)
    return case_of(xmls.domain(devices), rules(**more), host)


def item(case: Case, check: Check) -> Item:
    (found,) = [each for each in domains.checks(case, managed=True) if each.id == check.id]
    return found


# Files


def off(**disk: Any) -> Case:
    host = FakeHost()
    host.file(xmls.DISK, **disk)
    return case(xmls.disk(), host)


@pytest.mark.parametrize(
    "disk",
    [
        {"mode": 0o600},
        {"mode": 0o660},
        {"mode": 0o600, "uid": UID, "gid": UID},
        {"mode": 0o660, "uid": UID, "gid": UID},
        {"mode": 0o600, "gid": KVM},
    ],
)
def test_a_disk_that_is_roots_or_its_own_users_is_good(disk: dict[str, Any]) -> None:
    assert item(off(**disk), domains.FILES).state is State.GOOD


@pytest.mark.parametrize(
    ("disk", "seen", "fix"),
    [
        ({"mode": 0o644}, "has mode 0644", f"chmod o-rwx {xmls.DISK}"),
        ({"mode": 0o600, "uid": 64055}, "belongs to uid 64055", f"chown root {xmls.DISK}"),
        ({"mode": 0o600, "uid": UID + 1}, f"uid {UID + 1}", f"chown root {xmls.DISK}"),
        (
            {"mode": 0o660, "gid": KVM},
            f"mode 0660 and belongs to gid {KVM}",
            f"chmod go-rwx {xmls.DISK}",
        ),
    ],
)
def test_a_disk_that_others_reach_while_it_is_off_is_found(
    disk: dict[str, Any], seen: str, fix: str
) -> None:
    found = item(off(**disk), domains.FILES)
    assert found.state is State.BAD
    assert seen in found.seen
    assert found.fix == fix


@pytest.mark.parametrize(
    ("home", "seen"),
    [
        ({"uid": 1000, "mode": 0o700}, "/home/alice belongs to uid 1000"),
        ({"uid": 1600001105}, "/home/alice belongs to uid 1600001105"),
        ({"gid": 1001, "mode": 0o2770}, "/home/alice can be written by gid 1001"),
        ({"writers": (0, 1000), "mode": 0o775}, "/home/alice can be written by id 1000, through"),
    ],
)
@pytest.mark.parametrize("op", [Op.PREPARE, Op.STARTED])
def test_a_person_who_could_swap_a_disk_is_found_and_no_reason_to_refuse(
    home: dict[str, Any], seen: str, op: Op
) -> None:
    host = FakeHost()
    host.directory("/home/alice", **home)
    host.file("/home/alice/disks/a.qcow2")
    devices = xmls.disk("/home/alice/disks/a.qcow2")
    found = item(replace(case(devices, host), op=op), domains.DIRECTORIES)
    assert found.state is State.BAD
    assert found.seen.startswith(seen)
    assert item(case(devices, host), domains.STARTABLE).state is State.GOOD


@pytest.mark.parametrize("images", [{}, {"uid": 64055, "gid": KVM}, {"gid": 1000}, {"uid": 107}])
def test_a_directory_of_the_systems_is_no_persons(images: dict[str, Any]) -> None:
    host = FakeHost()
    host.directory("/srv/images", **images)
    host.file("/srv/images/a.qcow2")
    found = item(case(xmls.disk("/srv/images/a.qcow2"), host), domains.DIRECTORIES)
    assert found.state is State.GOOD


@pytest.mark.parametrize(
    ("mode", "title"),
    [
        (Mode.ENFORCING, "Its next start will be refused"),
        (Mode.PERMISSIVE, "Enforcing mode would refuse its next start"),
        (Mode.DISABLED, "Enforcing mode would refuse its next start"),
    ],
)
def test_a_start_that_the_mode_lets_be_is_not_said_to_be_refused(mode: Mode, title: str) -> None:
    missing = case(xmls.disk("/nowhere/a.qcow2"), mode=mode)
    assert item(missing, domains.STARTABLE).title == title


# Console


@pytest.mark.parametrize(
    ("address", "workstations", "display", "state"),
    [
        ("127.0.0.1", (), "on", State.GOOD),
        ("::1", (), "on", State.GOOD),
        ("192.0.2.5", ("192.0.2.0/28",), "on", State.GOOD),
        ("192.0.2.5", (), "off", State.GOOD),
        ("192.0.2.5", (), "on", State.BAD),
        (EVERYWHERE, (), "on", State.BAD),
        (EVERYWHERE, ("192.0.2.0/28", "0.0.0.0/0"), "on", State.BAD),
        (EVERYWHERE, ("::/0",), "on", State.BAD),
        ("kvm1.example.org", (), "on", State.BAD),
    ],
)
def test_a_console_beyond_this_host_is_for_listed_machines(
    address: str, workstations: tuple[str, ...], display: str, state: State
) -> None:
    more = {"admin_workstations": workstations, "display": display, "listen": (address,)}
    found = item(case(xmls.vnc(address), **more), domains.WORKSTATIONS)
    assert found.state is state


@pytest.mark.parametrize(("allowed", "state"), [("127.0.0.1", State.GOOD), (EVERYWHERE, State.BAD)])
def test_a_console_whose_address_libvirt_will_choose_is_judged_by_what_it_may_be(
    allowed: str, state: State
) -> None:
    unnamed = case("<graphics type='vnc' port='5900'/>", listen=(allowed,))
    assert item(unnamed, domains.WORKSTATIONS).state is state


def test_a_console_that_is_a_socket_is_this_hosts() -> None:
    socket = "<graphics type='vnc'><listen type='socket' socket='/run/a.sock'/></graphics>"
    assert item(case(socket), domains.WORKSTATIONS).state is State.GOOD


def test_spice_is_judged_as_vnc_is() -> None:
    spice = f"<graphics type='spice' port='5900' listen='{EVERYWHERE}'/>"
    assert item(case(spice), domains.CONSOLE).state is State.GOOD
    assert item(case(spice, password="off"), domains.CONSOLE).state is State.BAD
    assert item(case(spice), domains.WORKSTATIONS).state is State.BAD
    listed = case(spice, admin_workstations=("192.0.2.7",))
    assert item(listed, domains.WORKSTATIONS).state is State.GOOD


def test_an_exception_that_changes_nothing_any_more_is_none() -> None:
    found = item(case(exceptions=frozenset({"spice"})), domains.EXCEPTIONS)
    assert found.state is State.GOOD
    both = item(case(exceptions=frozenset({"spice", "emulator"})), domains.EXCEPTIONS)
    assert both.seen.startswith("emulator (")


def test_a_domain_without_a_console_is_not_asked_about_one() -> None:
    found = {each.id for each in domains.checks(case(), managed=True)}
    assert domains.WORKSTATIONS.id not in found


# Walls


@pytest.mark.parametrize(
    ("sandbox", "svirt", "state"),
    [
        ("auto", "off", State.GOOD),
        ("required", "off", State.GOOD),
        ("off", "required", State.GOOD),
        ("off", "preferred", State.BAD),
        ("off", "off", State.BAD),
    ],
)
def test_a_domain_that_nothing_will_confine_is_found(
    sandbox: str, svirt: str, state: State
) -> None:
    assert item(case(sandbox=sandbox, svirt=svirt), domains.CONFINED).state is state


@pytest.mark.parametrize(
    ("label", "of_process", "landlocked", "abi", "excepted", "state"),
    [
        (LABEL.format("selinux", UNCONFINED), UNCONFINED, False, 0, False, State.BAD),
        ("", "", True, 1, False, State.GOOD),
        ("", "", True, 0, False, State.BAD),
        ("", "", True, 1, True, State.BAD),
        ("", "", False, 1, False, State.BAD),
        (LABEL.format("selinux", SVIRT), SVIRT, False, 0, False, State.GOOD),
        (LABEL.format("selinux", SVIRT), UNCONFINED, False, 0, False, State.BAD),
        (APPARMOR, "libvirt-1 (enforce)", False, 1, False, State.GOOD),
        (APPARMOR, "libvirt-1 (complain)", False, 1, False, State.BAD),
        (LABEL.format("apparmor", ""), "unconfined", False, 1, False, State.BAD),
    ],
)
def test_a_running_domain_that_nothing_confines_is_found(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    label: str,
    of_process: str,
    landlocked: bool,
    abi: int,
    excepted: bool,
    state: State,
) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: abi)
    monkeypatch.setattr(lifecycle, "pid", lambda case: 1)
    seen = process_of(account_of("vmw-web01", xmls.UUID), label=of_process)
    monkeypatch.setattr(process, "read", lambda pid: seen)
    running = case(exceptions=frozenset({"emulator"}) if excepted else frozenset())
    xml = xmls.domain(labels=f"{xmls.label()}{label}")
    running = case_of(xml, running.rules, FakeHost(), Op.STARTED, Paths(run=tmp_path))
    cell = Path(running.cell)
    cell.mkdir()
    (cell / "ticket.json").write_text(json.dumps({"landlock": {} if landlocked else None}))
    assert item(running, domains.CONFINED).state is state


def test_a_label_that_a_permissive_selinux_only_logs_confines_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    xml = xmls.domain(labels=xmls.label() + LABEL.format("selinux", SVIRT))
    host = FakeHost(mac="selinux", permissive=True)
    running = case_of(xml, rules(), host, Op.STARTED, Paths(run=tmp_path))
    assert item(running, domains.CONFINED).state is State.BAD


def test_a_running_domain_is_not_asked_for_what_it_is_while_off() -> None:
    running = replace(case(), op=Op.STARTED)
    assert domains.FILES.id not in {each.id for each in domains.checks(running, managed=True)}


# What the policy lets it do


@pytest.mark.parametrize(
    ("more", "seen"),
    [
        ({}, "none"),
        ({"allow": ("usb 046d:c52b",)}, "usb 046d:c52b (built-in default)"),
        (
            {"exceptions": frozenset({"emulator", "spice"}), "allow": ("shmem a", "shmem b")},
            "emulator (built-in default); shmem a, shmem b (built-in default)",
        ),
    ],
)
def test_exceptions_and_what_is_allowed_of_the_host_are_told(
    more: dict[str, Any], seen: str
) -> None:
    found = item(case(**more), domains.EXCEPTIONS)
    assert (found.state, found.seen) == (State.BAD if more else State.GOOD, seen)


# System calls


@pytest.mark.parametrize(
    ("more", "state"),
    [
        ({}, State.GOOD),
        ({"system_calls": "log"}, State.BAD),
        ({"system_calls": "off"}, State.BAD),
        ({"mode": Mode.PERMISSIVE}, State.BAD),
        ({"exceptions": frozenset({"emulator"})}, State.BAD),
    ],
)
def test_system_calls_are_filtered_as_the_policy_says(more: dict[str, Any], state: State) -> None:
    assert item(case(**more), domains.CALLS).state is state


@pytest.mark.parametrize(
    ("ticket", "state"),
    [({"system_calls": {"filters": []}}, State.GOOD), ({}, State.BAD), (None, State.BAD)],
)
def test_a_running_domain_has_the_filters_that_its_ticket_gave(
    tmp_path: Path, ticket: Any, state: State
) -> None:
    running = replace(case(), op=Op.STARTED, paths=Paths(run=tmp_path))
    Path(running.cell).mkdir()
    if ticket is not None:
        (Path(running.cell) / "ticket.json").write_text(json.dumps(ticket))
    found = [i for i in domains._allowed(running) if i.id == domains.CALLS.id]
    assert [each.state for each in found] == [state]

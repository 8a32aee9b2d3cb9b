# SPDX-License-Identifier: GPL-2.0-or-later
"""The boot guard: what a domain boots is a copy of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import xmls
from fake_host import IMAGES, UID, FakeHost, account_of, case_of, process_of, refusal, rules

from virtwarden.changes import CopyFile, GrantAccess, LockShared
from virtwarden.domain.bootfiles import copy_of
from virtwarden.guards import boot, storage
from virtwarden.guards.base import Case, Op
from virtwarden.paths import Paths

KERNEL = f"{IMAGES}/vmlinuz"
COPY = copy_of(Paths(), xmls.UUID, KERNEL)


@pytest.fixture
def host() -> FakeHost:
    made = FakeHost()
    made.file(KERNEL, 0o644)
    made.accounts["vmw-web01"] = account_of("vmw-web01", xmls.UUID)
    return made


def case(host: FakeHost, op: Op = Op.PREPARE, *, copy: str = COPY, original: str = KERNEL) -> Case:
    notes = (
        f"<metadata><warden:enrolment><warden:copy path='{copy}' of='{original}'/>"
        "</warden:enrolment></metadata>"
    )
    return case_of(xmls.domain(os=f"<kernel>{copy}</kernel>", extra=notes), rules(), host, op)


def test_a_copy_is_made_for_each_start_and_the_original_is_left_alone(host: FakeHost) -> None:
    found = case(host)
    leaf = found.facts.look(KERNEL).leaf
    assert leaf is not None
    assert boot.review(found) == []
    way, copy = boot.plan(found)
    assert isinstance(way, GrantAccess)
    assert way.path == "/var/lib/virt-warden"
    assert copy == CopyFile(KERNEL, leaf.device, leaf.number, COPY, "vmw-web01")
    assert storage.plan(found) == []


@pytest.mark.parametrize("op", [Op.START, Op.STARTED])
def test_no_later_step_copies_again(host: FakeHost, op: Op) -> None:
    assert boot.plan(case(host, op)) == []


def test_two_domains_never_have_the_same_copy() -> None:
    assert copy_of(Paths(), xmls.OTHER, KERNEL) != COPY
    assert copy_of(Paths(), xmls.UUID, "/other/vmlinuz") != COPY


def test_the_name_of_a_copy_is_never_too_long_for_a_file_system() -> None:
    name = copy_of(Paths(), xmls.UUID, "/" + "ü" * 127).rpartition("/")[2]
    assert len(name.encode()) <= 255


@pytest.mark.parametrize(
    "copy", ["/etc/shadow", f"{IMAGES}/x", copy_of(Paths(), xmls.OTHER, KERNEL)]
)
def test_notes_that_name_another_place_overwrite_nothing(host: FakeHost, copy: str) -> None:
    found = case(host, copy=copy)
    assert "virt-warden enrol web01" in refusal(boot, found)
    assert boot.plan(found) == []


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (lambda host: host.inodes.pop(KERNEL), "it is not there"),
        (lambda host: host.symlink(KERNEL, "/etc/shadow"), "is a symlink"),
        (lambda host: host.file(KERNEL, uid=UID), "it belongs to a VM's user"),
        (lambda host: host.block(KERNEL, 2049), "it is not a regular file"),
        (lambda host: host.directory(IMAGES, uid=UID), "another user can swap it"),
    ],
)
def test_an_original_that_somebody_else_may_have_written_is_refused(
    host: FakeHost, alter: Callable[[FakeHost], object], reason: str
) -> None:
    alter(host)
    assert reason in refusal(boot, case(host))


def test_a_boot_file_that_an_edit_named_is_refused_until_it_is_enrolled(host: FakeHost) -> None:
    host.file(f"{IMAGES}/vmlinuz-2", 0o644)
    notes = (
        f"<metadata><warden:enrolment><warden:copy path='{COPY}' of='{KERNEL}'/>"
        "</warden:enrolment></metadata>"
    )
    edited = xmls.domain(os=f"<kernel>{IMAGES}/vmlinuz-2</kernel>", extra=notes)
    found = case_of(edited, rules(), host, Op.PREPARE)
    assert "virt-warden enrol web01" in refusal(boot, found)


def test_a_file_of_the_host_is_refused_as_an_original(host: FakeHost) -> None:
    host.file("/etc/shadow")
    copy = copy_of(Paths(), xmls.UUID, "/etc/shadow")
    found = case(host, copy=copy, original="/etc/shadow")
    assert "belong to the host" in refusal(boot, found)


@pytest.mark.parametrize(
    ("mode", "uid", "breach"),
    [
        (0o400, UID, ""),
        (0o400, 0, ""),
        (0o440, UID, "is open to others (mode 0440)"),
        (0o400, UID + 1, f"belongs to uid {UID + 1}"),
    ],
)
def test_a_copy_that_others_can_read_is_a_breach(
    host: FakeHost, mode: int, uid: int, breach: str
) -> None:
    host.file(COPY, mode, uid=uid)
    found = boot.verify(case(host, Op.STARTED), process_of(host.accounts["vmw-web01"]))
    assert [breach in line for line in found] == [True] * bool(breach)


def test_a_file_for_fw_cfg_is_locked_too_since_it_may_have_a_password(host: FakeHost) -> None:
    notes = (
        f"<metadata><warden:enrolment><warden:copy path='{COPY}' of='{KERNEL}'/>"
        "</warden:enrolment></metadata>"
        f"<sysinfo type='fwcfg'><entry name='opt/a' file='{COPY}'/></sysinfo>"
    )
    found = case_of(xmls.domain(extra=notes), rules(), host)
    assert any(isinstance(change, LockShared) for change in boot.plan(found))
    (breach,) = boot.verify(found, process_of(host.accounts["vmw-web01"]))
    assert f"{KERNEL} is open to everyone" in breach

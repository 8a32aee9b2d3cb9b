# SPDX-License-Identifier: GPL-2.0-or-later
"""The sandbox guard: the wrapper starts QEMU, and nothing was slipped into its arguments."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import wrapped
import xmls
from fake_host import (
    UID,
    FakeHost,
    account_of,
    case_of,
    process_of,
    refusal,
    refusals,
    rules,
)

from virtwarden.changes import EndProcesses, HideProgram, WriteFile
from virtwarden.guards import sandbox
from virtwarden.guards.base import Case, Op

ARM = xmls.domain().replace("arch='x86_64'", "arch='aarch64'")
ARGUMENTS = "<qemu:commandline><qemu:arg value='-s'/></qemu:commandline>"
ENVIRONMENT = "<qemu:commandline><qemu:env name='LD_PRELOAD' value='/x'/></qemu:commandline>"
OVERRIDE = "<qemu:override><qemu:device alias='a'><qemu:frontend/></qemu:device></qemu:override>"
CAPABILITIES = "<qemu:capabilities><qemu:del capability='x'/></qemu:capabilities>"


def case(xml: str = "", op: Op = Op.PREPARE, *, known: bool = True, **more: Any) -> Case:
    host = FakeHost()
    if known:
        host.accounts["vmw-web01"] = account_of("vmw-web01", xmls.UUID)
    return case_of(xml or xmls.domain(), rules(**more), host, op)


# Attacks


@pytest.mark.parametrize(
    "emulator",
    [
        "",
        "/usr/bin/qemu-system-x86_64",
        "/usr/lib/virt-warden/qemu-system-aarch64",
        "/usr/lib/virt-warden/../virt-warden/qemu-system-x86_64",
        "/usr/lib/virt-warden/qemu-system-x86_64 ",
        "/tmp/qemu-system-x86_64",
    ],
)
@pytest.mark.parametrize("op", [Op.PREPARE, Op.START])
def test_any_emulator_but_the_wrapper_is_refused_unless_excepted(emulator: str, op: Op) -> None:
    xml = xmls.domain(emulator=emulator)
    line = refusal(sandbox, case(xml, op))
    assert f"its emulator is {emulator or 'not named'}, not /usr/lib/virt-warden/" in " ".join(
        [line]
    )
    assert "virt-warden enrol web01" in line
    assert refusals(sandbox, case(xml, op, exceptions=frozenset({"emulator"}))) == []


@pytest.mark.parametrize("extra", [ARGUMENTS, ENVIRONMENT, OVERRIDE, CAPABILITIES])
def test_arguments_of_its_own_are_refused_unless_excepted(extra: str) -> None:
    xml = xmls.domain(extra=extra)
    assert "passes extra arguments to QEMU" in refusal(sandbox, case(xml))
    assert refusals(sandbox, case(xml, exceptions=frozenset({"qemu-commandline"}))) == []


def test_one_exception_is_not_the_other() -> None:
    xml = xmls.domain(extra=ARGUMENTS, emulator="/tmp/q")
    assert len(refusals(sandbox, case(xml))) == 2
    assert "emulator is" in refusal(sandbox, case(xml, exceptions=frozenset({"qemu-commandline"})))
    assert "arguments" in refusal(sandbox, case(xml, exceptions=frozenset({"emulator"})))


@pytest.mark.parametrize("op", [Op.PREPARE, Op.START])
def test_a_transient_disk_whose_overlay_the_sandbox_would_hide_is_refused(op: Op) -> None:
    xml = xmls.domain(xmls.disk(inside="<transient/>"))
    line = refusal(sandbox, case(xml, op))
    assert "disk vda" in line
    assert "it is transient" in line
    assert 'directories = ["/var/lib/libvirt/images"] under [domain.landlock]' in line
    for allowed in ("/var/lib/libvirt/images", "/var/lib"):
        assert refusals(sandbox, case(xml, op, directories=(allowed,))) == []
    for more in ({"sandbox": "off"}, {"exceptions": frozenset({"emulator"})}):
        assert refusals(sandbox, case(xml, op, **more)) == []


def test_a_transient_disk_passes_where_nothing_hides_its_overlay() -> None:
    xml = xmls.domain(xmls.disk(inside="<transient/>"))
    under_apparmor = case(xml)
    under_apparmor.facts.mac = "apparmor"  # type: ignore[attr-defined]
    assert refusals(sandbox, under_apparmor) == []
    without_landlock = case(xml, Op.START)
    without_landlock.facts.landlock = False  # type: ignore[attr-defined]
    assert refusals(sandbox, without_landlock) == []
    readonly = xmls.domain(xmls.disk(inside="<transient/><readonly/>"))
    assert refusals(sandbox, case(readonly)) == []


# Honest passage


@pytest.mark.parametrize(
    ("arch", "binary"),
    [("x86_64", "x86_64"), ("i686", "i386"), ("armv7l", "arm"), ("riscv64",) * 2],
)
def test_the_wrapper_of_its_architecture_passes(arch: str, binary: str) -> None:
    xml = xmls.domain(emulator=f"/usr/lib/virt-warden/qemu-system-{binary}")
    assert refusals(sandbox, case(xml.replace("arch='x86_64'", f"arch='{arch}'"))) == []


# Plan


def test_the_ticket_is_written_at_the_start_for_its_user_alone() -> None:
    written, _ = sandbox.plan(case(op=Op.START))
    assert isinstance(written, WriteFile)
    assert written.path == f"/run/virt-warden/{xmls.UUID}/ticket.json"
    assert written.user == "vmw-web01"
    assert json.loads(written.content)["uid"] == UID


def test_without_its_user_there_is_no_ticket() -> None:
    assert sandbox.plan(case(op=Op.START, known=False)) == [EndProcesses("vmw-web01")]


def test_what_the_user_leaves_running_ends_first_of_all_at_the_stop() -> None:
    for op in (Op.PREPARE, Op.START):
        assert sandbox.plan(case(op=op))[-1] == EndProcesses("vmw-web01")
    assert sandbox.plan(case(op=Op.STARTED)) == []


# Promise


def test_a_process_as_the_wrapper_leaves_it_keeps_the_promise() -> None:
    process = process_of(account_of("vmw-web01", xmls.UUID))
    assert sandbox.verify(case(op=Op.STARTED), process) == []


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ({"no_new_privileges": False}, "can gain privileges"),
        ({"seccomp": False}, "can make every system call"),
        ({"core_limit": "unlimited"}, "can write its guest's memory to a core dump"),
        ({"environment": frozenset({"PATH", "LD_PRELOAD"})}, "variable 'LD_PRELOAD'"),
        ({"umask": 0o022}, "makes files that other users can read (umask 022)"),
        ({"executable": "/usr/bin/python3.11"}, "the process runs /usr/bin/python3.11"),
        ({"executable": "/usr/bin/qemu-system-x86_64 (deleted)"}, "QEMU was updated on disk"),
    ],
)
def test_whatever_is_looser_breaks_it(broken: dict[str, Any], sentence: str) -> None:
    process = process_of(account_of("vmw-web01", xmls.UUID), **broken)
    (breach,) = sandbox.verify(case(op=Op.STARTED), process)
    assert sentence in breach
    excepted = case(op=Op.STARTED, exceptions=frozenset({"emulator"}))
    assert sandbox.verify(excepted, process) == []


def test_an_adopted_qemu_whose_memory_is_not_roots_breaks_it() -> None:
    """Whoever made its user namespace, which is libvirt's own user, would get in."""
    adopted = replace(case(op=Op.STARTED), adopted=True)
    account = account_of("vmw-web01", xmls.UUID)
    (breach,) = sandbox.verify(adopted, process_of(account))
    assert "could change QEMU's memory: it can read /usr/bin/qemu-system-x86_64" in breach
    assert sandbox.verify(adopted, process_of(account, is_closed=True)) == []


def test_the_user_of_an_adopted_vm_may_execute_qemu_and_not_read_it() -> None:
    host = FakeHost()
    program = host.file("/usr/bin/qemu-system-x86_64", 0o755)
    host.symlink("/usr/bin/qemu-system-aarch64", "/opt/qemu")
    linked = host.file("/opt/qemu", 0o755)
    for xml, found in ((xmls.domain(), program), (ARM, linked)):
        (hide,) = sandbox.plan(case_of(xml, rules(), host, Op.ADOPT))
        assert hide == HideProgram(found.path, found.device, found.number, "kvm")
    assert sandbox.plan(case_of(xmls.domain(), rules(), FakeHost(), Op.ADOPT)) == []


def test_what_the_wrapper_lets_through_is_what_the_promise_allows() -> None:
    assert wrapped.process.ENVIRONMENT == sandbox.ENVIRONMENT


def test_variables_that_the_policy_lets_a_domain_pass_break_no_promise() -> None:
    process = process_of(account_of("vmw-web01", xmls.UUID), environment=frozenset({"QEMU_X"}))
    excepted = case(op=Op.STARTED, exceptions=frozenset({"qemu-commandline"}))
    assert sandbox.verify(excepted, process) == []


@pytest.mark.parametrize(
    ("cgroup", "kept"),
    [
        (r"/machine.slice/machine-qemu\x2d1\x2dweb01.scope/libvirt/emulator", True),
        ("/machine/qemu-1-web01.libvirt-qemu/emulator", True),
        ("/system.slice/libvirtd.service", False),
        ("", False),
    ],
)
def test_where_there_are_cgroups_a_vm_has_its_own(cgroup: str, *, kept: bool) -> None:
    process = process_of(account_of("vmw-web01", xmls.UUID), cgroup=cgroup)
    without = case(op=Op.STARTED)
    assert sandbox.verify(without, process) == []
    breaches = sandbox.verify(replace(without, facts=FakeHost(cgroups=True)), process)
    assert breaches == [] if kept else "not in its own" in breaches[0]

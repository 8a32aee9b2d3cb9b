# SPDX-License-Identifier: GPL-2.0-or-later
"""A sandbox of Landlock takes the place of sVirt, wherever sVirt holds nobody."""

from __future__ import annotations

import pytest
import xmls
from fake_host import FakeHost, case_of, rules

from virtwarden.guards import confinement
from virtwarden.guards.base import Op

EMULATOR = "/usr/bin/qemu-system-x86_64"
SVIRT = "system_u:system_r:svirt_t:s0:c1,c2"
APPARMOR = f"libvirt-{xmls.UUID}"


def is_sandboxed(
    model: str, label: str, *, permissive: bool = False, sandbox: str = "auto"
) -> bool:
    labels = f"<seclabel type='dynamic' model='{model}'><label>{label}</label></seclabel>"
    xml = xmls.domain(xmls.disk(), labels=xmls.label() + labels)
    host = FakeHost(mac=model, permissive=permissive)
    case = case_of(xml, rules(sandbox=sandbox), host, Op.START)
    return confinement.landlock_rules(case, EMULATOR) is not None


# Attacks


@pytest.mark.parametrize(
    "label", [SVIRT.replace("svirt_t", "unconfined_t"), "system_u:system_r:svirt_t:s0"]
)
def test_a_label_that_tells_no_vm_from_another_is_no_way_out_of_the_sandbox(label: str) -> None:
    assert is_sandboxed("selinux", label)


def test_a_permissive_selinux_holds_nobody_so_the_sandbox_does() -> None:
    assert is_sandboxed("selinux", SVIRT, permissive=True)


# Honest passage


@pytest.mark.parametrize(("mode", "may_make_it"), [("server", True), ("client", False)])
def test_qemu_makes_the_socket_of_a_vhost_user_nic_where_it_is_the_server(
    mode: str, may_make_it: bool
) -> None:
    nic = f"<interface type='vhostuser'><source path='/run/switch/a' mode='{mode}'/></interface>"
    case = case_of(xmls.domain(nic), rules(untapped="allow"), FakeHost(), Op.START)
    found = confinement.landlock_rules(case, EMULATOR)
    assert found is not None
    assert "/run/switch/a" in found["write"]
    assert ("/run/switch" in found["write"]) == may_make_it


@pytest.mark.parametrize(("model", "label"), [("selinux", SVIRT), ("apparmor", APPARMOR)])
def test_what_its_label_confines_needs_no_sandbox(model: str, label: str) -> None:
    assert not is_sandboxed(model, label)
    assert is_sandboxed(model, label, sandbox="required")


def test_where_it_is_off_there_is_none() -> None:
    assert not is_sandboxed("selinux", SVIRT, permissive=True, sandbox="off")


def test_both_ends_of_a_pipe_are_open_where_the_policy_allows_it() -> None:
    xml = xmls.domain("<serial type='pipe'><source path='/srv/a'/></serial>", labels=xmls.label())
    for allow, ends in (((), set()), (("file /srv/a",), {"/srv/a", "/srv/a.in", "/srv/a.out"})):
        case = case_of(xml, rules(allow=allow), FakeHost(), Op.START)
        made = confinement.landlock_rules(case, EMULATOR)
        assert made is not None
        assert {path for path in made["write"] if path.startswith("/srv")} == ends


@pytest.mark.parametrize(
    ("allow", "is_open"), [((), False), (("shmem b",), False), (("shmem a",), True)]
)
def test_the_memory_that_vms_share_can_be_made_where_the_policy_allows_it(
    allow: tuple[str, ...], is_open: bool
) -> None:
    xml = xmls.domain("<shmem name='a'/>", labels=xmls.label())
    made = confinement.landlock_rules(
        case_of(xml, rules(allow=allow), FakeHost(), Op.START), EMULATOR
    )
    assert made is not None
    assert ("/dev/shm" in made["write"]) is is_open

# SPDX-License-Identifier: GPL-2.0-or-later
"""The ticket: that the wrapper can read what the hook writes, and finds in it what was planned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import wrapped
import xmls
from conftest import GOLDEN
from fake_host import UID, FakeHost, account_of, case_of, rules

from virtwarden.guards import ticket
from virtwarden.guards.base import Op
from virtwarden.paths import Paths
from virtwarden.policy import Mode
from virtwarden.system import scsi


def ticket_of(devices: str = "", **more: Any) -> dict[str, Any]:
    case = case_of(xmls.domain(devices), rules(**more), FakeHost(), Op.START)
    account = account_of("vmw-web01", xmls.UUID)
    return dict(wrapped.ticket.parse_ticket(ticket.render(case, account), xmls.UUID))


def test_the_wrapper_reads_what_the_hook_writes() -> None:
    found = ticket_of(xmls.disk() + xmls.nic("52:54:00:AA:BB:CC") + xmls.vnc())
    assert found["uid"] == UID
    assert found["files"] == [xmls.DISK]
    assert found["macs"] == ["52:54:00:aa:bb:cc"]
    assert found["vnc"] == [{"listen": "127.0.0.1", "port": 5900}]
    assert found["tls_dir"] == f"/run/virt-warden/{xmls.UUID}/tls"


def test_a_pci_device_that_is_a_nic_has_no_mac_on_the_command_line() -> None:
    passed = xmls.nic("52:54:00:00:00:02", kind="hostdev")
    assert ticket_of(xmls.nic("52:54:00:00:00:01") + passed)["macs"] == ["52:54:00:00:00:01"]


def test_a_scsi_device_of_the_host_is_the_one_by_which_libvirt_sends_it_commands() -> None:
    device = (
        "<hostdev mode='subsystem' type='scsi'><source><adapter name='scsi_host2'/>"
        "<address bus='0' target='1' unit='3'/></source></hostdev>"
    )
    host = FakeHost(generic_scsis={("scsi_host2", "0", "1", "3"): "/dev/sg4"})
    allowed = rules(exceptions=frozenset({"host-devices"}))
    case = case_of(xmls.domain(device), allowed, host, Op.START)
    found = json.loads(ticket.render(case, account_of("vmw-web01", xmls.UUID)))
    assert found["files"] == ["/dev/sg4"]
    assert "/dev/sg4" in found["landlock"]["write"]


def test_the_kernel_tells_which_device_takes_the_commands_of_a_scsi_device(tmp_path: Path) -> None:
    (tmp_path / "2:0:1:3" / "scsi_generic" / "sg4").mkdir(parents=True)
    assert scsi.generic("scsi_host2", "0", "1", "3", tmp_path) == "/dev/sg4"
    assert scsi.generic("scsi_host2", "00", "01", "3", tmp_path) == "/dev/sg4"
    for other in (("scsi_host1", "0", "1", "3"), ("scsi_host2", "0", "1", "4"), ("", "", "", "")):
        assert scsi.generic(*other, tmp_path) == ""
    assert scsi.generic("scsi_host2", "..", "1", "3", tmp_path) == ""


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("xml/*.start.xml")), ids=lambda f: f.name)
@pytest.mark.parametrize("mode", [*Mode])
def test_the_wrapper_reads_the_ticket_of_whatever_libvirt_starts(file: Any, mode: Mode) -> None:
    case = case_of(file.read_bytes(), rules(mode=mode), FakeHost(), Op.START)
    account = account_of(case.user, case.domain.uuid)
    found = wrapped.ticket.parse_ticket(ticket.render(case, account), case.domain.uuid)
    assert (found["name"], found["mode"]) == (case.domain.name, mode.value)


@pytest.mark.parametrize("path", ["relative.img", " /a", "../x"])
def test_a_path_that_is_none_does_not_spoil_the_ticket(path: str) -> None:
    """In permissive mode the domain starts all the same; nothing of that name is let pass."""
    assert ticket_of(xmls.disk(path))["files"] == []


@pytest.mark.parametrize(
    ("graphics", "ends"),
    [
        ("<graphics type='vnc' port='5901' listen='::1'/>", [{"listen": "::1", "port": 5901}]),
        ("<graphics type='vnc' socket='/run/a'/>", [{"socket": "/run/a"}]),
        (
            "<graphics type='vnc'><listen type='socket' socket='/run/b'/></graphics>",
            [{"socket": "/run/b"}],
        ),
        ("<graphics type='vnc'><listen type='none'/></graphics>", []),
        ("<graphics type='spice' port='5900'/>", []),
        ("<graphics type='egl-headless'/>", []),
    ],
)
def test_each_display_ends_where_it_is_reached(graphics: str, ends: list[Any]) -> None:
    assert ticket_of(graphics)["vnc"] == ends


@pytest.mark.parametrize(
    ("exceptions", "passthrough"),
    [
        (set(), False),
        ({"qemu-commandline"}, True),
        ({"spice", "emulator", "host-devices"}, False),
    ],
)
def test_exceptions_of_the_policy_reach_the_wrapper(
    exceptions: set[str], passthrough: bool
) -> None:
    assert ticket_of(exceptions=frozenset(exceptions))["passthrough"] is passthrough


@pytest.mark.parametrize(
    ("graphics", "ends"),
    [
        (xmls.vnc(), False),
        (
            "<graphics type='spice' port='5901' listen='::1'/>",
            [{"listen": "::1", "port": 5901}],
        ),
        (
            "<graphics type='spice' port='5901' tlsPort='5902' listen='::1'/>",
            [{"listen": "::1", "port": 5901}, {"listen": "::1", "port": 5902}],
        ),
        (
            "<graphics type='spice' port='-1' tlsPort='5902' listen='::1'/>",
            [{"listen": "::1", "port": 5902}],
        ),
        ("<graphics type='spice'><listen type='none'/></graphics>", []),
        (
            "<graphics type='spice'><listen type='socket' socket='/run/b'/></graphics>",
            [{"socket": "/run/b"}],
        ),
    ],
)
def test_spice_ends_where_it_is_reached(graphics: str, ends: Any) -> None:
    found = ticket_of(graphics)["spice"]
    assert found is ends if ends is False else [e for e in ends if e not in found] == []


def test_what_the_policy_turns_off_is_off() -> None:
    found = ticket_of(xmls.vnc(), tls="off", password="off")
    assert (found["tls_dir"], found["password"]) == (None, False)


def test_a_ticket_holds_no_secret() -> None:
    devices = "<graphics type='vnc' port='5900' listen='::1' passwd='geheim'/>"
    assert "geheim" not in json.dumps(ticket_of(devices))


@pytest.mark.parametrize(
    ("arch", "binary"), [("x86_64", "x86_64"), ("i686", "i386"), ("armv7l", "arm")]
)
def test_wrapper_and_qemu_are_those_of_the_architecture(arch: str, binary: str) -> None:
    assert ticket.wrapper_path(Paths(), arch) == f"/usr/lib/virt-warden/qemu-system-{binary}"
    assert ticket.emulator_path(arch) == f"/usr/bin/qemu-system-{binary}"

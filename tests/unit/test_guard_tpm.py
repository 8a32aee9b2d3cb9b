# SPDX-License-Identifier: GPL-2.0-or-later
"""The note for swtpm's wrapper: for which domains there is one, and what it says."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import xmls
from fake_host import FakeHost, case_of, rules

from virtwarden.changes import RequireSocketOf, WriteFile
from virtwarden.errors import HostError
from virtwarden.guards import tpm
from virtwarden.guards.base import Case, Op
from virtwarden.paths import Paths
from virtwarden.policy import Mode

TPM = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'>{}</backend></tpm>"
PID_FILE = "/run/libvirt/qemu/swtpm/7-web01-swtpm.pid"
NOTE = "/run/virt-warden/tpms/web01.json"
CONFINED = ("/usr/bin/swtpm", "socket", "--ctrl", "type=unixio,fd=4,mode=0600")
AS_LIBVIRT = ("/usr/bin/swtpm", "socket", "--ctrl", "type=unixio,path=/run/s,mode=0600")


def case(
    devices: str = TPM.format(""), host: FakeHost | None = None, op: Op = Op.PREPARE, **more: Any
) -> Case:
    return case_of(xmls.domain(devices), rules(**more), host or FakeHost(), op)


def test_the_note_says_what_this_tpm_needs() -> None:
    (note,) = tpm.plan(case())
    assert isinstance(note, WriteFile)
    assert (note.path, note.everybody) == (NOTE, True)
    said = json.loads(note.content)
    assert (said["name"], said["mode"], said["required"]) == ("web01", "enforcing", False)
    assert said["socket"] == "/run/libvirt/qemu/swtpm/7-web01-swtpm.sock"
    assert said["write"][:2] == [
        f"/var/lib/libvirt/swtpm/{xmls.UUID}",
        "/var/log/swtpm/libvirt/qemu/web01-swtpm.log",
    ]


def test_a_state_elsewhere_is_its_own_too() -> None:
    (note,) = tpm.plan(case(TPM.format("<source type='dir' path='/srv/tpm'/>"), sandbox="required"))
    assert isinstance(note, WriteFile)
    assert "/srv/tpm" in json.loads(note.content)["write"]
    assert json.loads(note.content)["required"]


@pytest.mark.parametrize(
    "given",
    [
        {"devices": ""},
        {"devices": "<tpm><backend type='passthrough'/></tpm>"},
        {"mode": Mode.DISABLED},
        {"sandbox": "off"},
        {"host": FakeHost(mac="apparmor", profiles=("swtpm",))},
        {"host": FakeHost(mac="selinux")},
        {"op": Op.STARTED},
        {"op": Op.START, "devices": TPM.format("<source type='file' path='/srv/tpm'/>")},
    ],
)
def test_for_others_there_is_none(given: dict[str, Any]) -> None:
    assert tpm.plan(case(**given)) == []


def test_apparmors_label_alone_does_not_keep_one_tpm_from_others() -> None:
    assert len(tpm.plan(case(host=FakeHost(mac="apparmor")))) == 1


@pytest.mark.parametrize(
    ("arguments", "noted", "breaches"),
    [(CONFINED, True, 0), (AS_LIBVIRT, True, 1), (AS_LIBVIRT, False, 0), ((), True, 0)],
)
def test_one_that_libvirt_started_by_itself_is_a_breach(
    arguments: tuple[str, ...], noted: bool, breaches: int
) -> None:
    host = FakeHost(command_lines={PID_FILE: arguments})
    if noted:
        host.file(NOTE)
    found = tpm.verify(case(host=host, op=Op.STARTED))
    assert len(found) == breaches
    assert all("systemctl restart libvirtd" in breach for breach in found)


def test_at_the_start_its_socket_is_looked_at() -> None:
    (look,) = tpm.plan(case(op=Op.START))
    assert isinstance(look, RequireSocketOf)
    assert look.states == tuple(
        f"/var/lib/libvirt/swtpm/{xmls.UUID}/{version}" for version in ("tpm2", "tpm1.2")
    )


def test_what_is_not_the_sockets_of_the_states_owner_is_refused(tmp_path: Path) -> None:
    state, place = tmp_path / "tpm2", tmp_path / "sock"
    look = RequireSocketOf(str(place), (str(state), str(tmp_path / "tpm1.2")))
    look.apply(Paths(), {})  # nobody has a state there
    state.mkdir()
    with pytest.raises(HostError, match="is not its TPM's socket"):
        look.apply(Paths(), {})
    place.write_text("")
    with pytest.raises(HostError, match="another process has put something there"):
        look.apply(Paths(), {})
    place.unlink()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(place))
    look.apply(Paths(), {})
    if os.getuid() == 0:
        os.chown(place, 64055, -1)
        with pytest.raises(HostError):
            look.apply(Paths(), {})

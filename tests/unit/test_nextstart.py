# SPDX-License-Identifier: GPL-2.0-or-later
"""What a domain's next start would be refused for is told of it as it will be, enrolled."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import xmls
from fake_host import FakeHost, rules

from virtwarden import lifecycle, nextstart
from virtwarden.changes import GrantAccess, access
from virtwarden.enrolment import enrol
from virtwarden.errors import DomainError, HostError, Refusal
from virtwarden.guards import console, identity, luks, network, sandbox, storage, zones
from virtwarden.guards.base import Case
from virtwarden.nextstart import NextStart, foresee
from virtwarden.paths import Paths
from virtwarden.policy import Mode
from virtwarden.system import filesystems

PLAIN = "/usr/bin/qemu-system-x86_64"
OF_ITS_USER = {"identity", "luks", "storage", "boot", "host", "sandbox"}


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards that have nothing against anybody, on a host without this domain's user."""
    monkeypatch.setattr(nextstart, "_FactsBeforeStart", lambda paths, uuid: FakeHost())
    for asked in ("account", "account_of", "group_id"):
        monkeypatch.setattr(enrol.users, asked, lambda _: None)
    for guard in lifecycle.GUARDS:
        monkeypatch.setattr(guard, "review", lambda case: [])


def refuse(monkeypatch: pytest.MonkeyPatch, guard: ModuleType) -> None:
    monkeypatch.setattr(guard, "review", lambda case: [Refusal(f"no {guard.NAME}", fix="mend it")])


def seen(tmp_path: Path, xml: str | None = None, **changed: Any) -> NextStart:
    paths = Paths(state=tmp_path / "state", libvirt_config=tmp_path / "qemu")
    plain = xmls.domain(labels="", emulator=PLAIN) if xml is None else xml
    return foresee(paths, rules(**changed), plain.encode())


def test_the_guards_review_the_enrolled_domain_in_enforcing_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases: list[Case] = []
    monkeypatch.setattr(storage, "review", lambda case: cases.append(case) or [])
    assert seen(tmp_path, mode=Mode.PERMISSIVE) == NextStart((), may_lack_access=False)
    (case,) = cases
    assert case.domain.enrolment
    assert case.user == "vmw-web01"
    assert case.rules.mode is Mode.ENFORCING


@pytest.mark.parametrize("guard", lifecycle.GUARDS, ids=lambda guard: guard.NAME)
def test_each_refusal_is_a_reason_and_those_of_files_and_devices_say_that_access_may_lack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guard: ModuleType
) -> None:
    refuse(monkeypatch, guard)
    found = seen(tmp_path)
    assert [str(reason) for reason in found.reasons] == [f"no {guard.NAME}; fix: mend it"]
    assert found.may_lack_access == (guard.NAME in OF_ITS_USER)


def test_a_guard_that_cannot_look_is_a_reason_and_the_others_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(case: Case) -> list[Refusal]:
        raise OSError("the disk is gone")

    monkeypatch.setattr(luks, "review", fail)
    refuse(monkeypatch, zones)
    first, second = seen(tmp_path).reasons
    assert "the disk is gone" in str(first)
    assert "no zones" in str(second)


def test_where_it_cannot_be_enrolled_that_is_told_and_what_does_not_depend_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise HostError("a header that nobody may believe", fix="virsh edit web01")

    monkeypatch.setattr(nextstart, "enrol_xml", fail)
    for guard in (identity, storage, sandbox, network, console):
        refuse(monkeypatch, guard)
    found = seen(tmp_path)
    assert [reason.what for reason in found.reasons] == [
        "a header that nobody may believe",
        "no network",
        "no console",
    ]
    assert found.may_lack_access


@pytest.mark.parametrize(
    ("emulator", "is_its_own"),
    [
        (PLAIN, False),
        ("/usr/bin/kvm", False),
        ("/usr/lib/virt-warden/qemu-system-x86_64", False),
        ("/opt/qemu/bin/qemu-system-x86_64", True),
        ("/usr/bin/qemu-system-i386", True),
    ],
)
def test_an_emulator_of_the_admins_own_which_enrolment_would_replace_is_a_reason(
    tmp_path: Path, emulator: str, *, is_its_own: bool
) -> None:
    found = seen(tmp_path, xmls.domain(labels="", emulator=emulator))
    assert found.may_lack_access is is_its_own
    assert [emulator in str(reason) for reason in found.reasons] == [True] * is_its_own
    allowed = seen(
        tmp_path,
        xmls.domain(labels="", emulator=emulator),
        exceptions=frozenset({"emulator"}),
    )
    assert allowed.reasons == ()


def test_a_password_that_enforcing_mode_would_not_enrol_is_a_reason(tmp_path: Path) -> None:
    vnc = "<graphics type='vnc' passwd='secret'/>"
    xml = xmls.domain(vnc, labels="", emulator=PLAIN)
    found = seen(tmp_path, xml, static_passwords="deny")
    assert ["static password" in str(reason) for reason in found.reasons] == [True]
    assert not found.may_lack_access


@pytest.mark.parametrize("xml", ["", "<domain/>", "<!DOCTYPE x []><domain/>", "<network/>"])
def test_what_is_not_the_xml_of_a_domain_is_an_error(tmp_path: Path, xml: str) -> None:
    with pytest.raises(DomainError):
        seen(tmp_path, xml)


# File systems

DISK = "/srv/nfs/web01.img"


def on_nfs(monkeypatch: pytest.MonkeyPatch, *, keeps: bool) -> None:
    monkeypatch.setattr(filesystems, "may_refuse_owners", lambda path: path.startswith("/srv/nfs"))
    monkeypatch.setattr(filesystems, "keeps_owners", lambda directory, uid: keeps)


@pytest.mark.parametrize("path", [DISK, "/srv/ext4/web01.img"])
def test_a_disk_on_a_file_system_that_may_refuse_owners_says_that_access_may_lack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    on_nfs(monkeypatch, keeps=True)
    found = seen(tmp_path, xmls.domain(xmls.disk(path), labels="", emulator=PLAIN))
    assert (found.reasons, found.may_lack_access) == ((), path == DISK)


@pytest.mark.parametrize("keeps", [True, False])
def test_only_a_try_tells_whether_it_does(monkeypatch: pytest.MonkeyPatch, *, keeps: bool) -> None:
    on_nfs(monkeypatch, keeps=keeps)
    xml = xmls.domain(xmls.disk(DISK), labels="", emulator=PLAIN).encode()
    found = [str(reason) for reason in nextstart.try_owners(rules(), xml)]
    assert ["does not let a file belong" in reason for reason in found] == [True] * (not keeps)
    elsewhere = xmls.domain(xmls.disk("/srv/a.img"), labels="", emulator=PLAIN).encode()
    assert nextstart.try_owners(rules(), elsewhere) == []


def test_what_only_a_try_tells_is_told_with_the_command_that_tries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_nfs(monkeypatch, keeps=False)
    xml = xmls.domain(xmls.disk(DISK), labels="", emulator=PLAIN).encode()
    (told,) = nextstart.untried(rules(), xml)
    assert DISK in told
    assert told.endswith("virt-warden enrol web01")
    elsewhere = xmls.domain(xmls.disk("/srv/a.img"), labels="", emulator=PLAIN).encode()
    assert nextstart.untried(rules(), elsewhere) == []


def test_an_iso_that_everybody_may_read_needs_no_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystems, "may_refuse_owners", lambda path: True)
    iso = tmp_path / "debian.iso"
    iso.touch()
    disk = xmls.disk(str(iso), inside="<readonly/>")
    for mode, lacks in ((0o644, False), (0o600, True)):
        iso.chmod(mode)
        found = seen(tmp_path, xmls.domain(disk, labels="", emulator=PLAIN))
        assert found.may_lack_access is lacks


@pytest.mark.parametrize("can", [True, False])
def test_a_shared_file_that_can_have_no_entry_for_the_user_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, can: bool
) -> None:
    base = tmp_path / "base.img"
    base.touch()
    place = base.stat()
    grant = GrantAccess(str(base), place.st_dev, place.st_ino, "vmw-web01", 4)
    monkeypatch.setattr(storage, "plan", lambda case: [grant])
    monkeypatch.setattr(access.acl, "can_be_set", lambda handle: can)
    found = seen(tmp_path)
    assert [f"{base} cannot have an ACL" in str(r) for r in found.reasons] == [True] * (not can)
    assert found.may_lack_access is not can
    base.unlink()  # the start will say that it is gone
    assert seen(tmp_path).reasons == ()

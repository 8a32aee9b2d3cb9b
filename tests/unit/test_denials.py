# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose a denial of the kernel is; the records are as Debian's kernels write them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
import xmls

from virtwarden.audit import attacks
from virtwarden.audit.denials import Denial, Domain, denials, ran, record
from virtwarden.audit.item import Severity, State
from virtwarden.domain.model import read

WEB = Domain("web01", xmls.UUID)
WHEN = datetime(2026, 11, 29, 3, 0).astimezone()
BOOT = "b" * 32
SECCOMP = (
    "audit: type=1326 audit(1796000000.123:45): auid=4294967295 uid=70000 gid=70000"
    ' ses=4294967295 subj=unconfined pid=4711 comm="qemu-system-x86"'
    ' exe="/usr/bin/qemu-system-x86_64" sig=31 arch=c000003e syscall=101 compat=0 ip=0x7f code=0x0'
)
APPARMOR = (
    'audit: type=1400 audit(1796000001.500:46): apparmor="DENIED" operation="open" class="file"'
    f' profile="libvirt-{xmls.UUID}" name="/etc/shadow" pid=4711 comm="qemu-system-x86"'
    ' requested_mask="r" denied_mask="r" fsuid=70000 ouid=0'
)
SELINUX = (
    "audit: type=1400 audit(1796000002.000:47): avc:  denied  { read } for  pid=4711"
    ' comm="qemu-system-x86" name="shadow" dev="vda1" ino=123'
    " scontext=system_u:system_r:svirt_tcg_t:s0:c1,c2 tcontext=system_u:object_r:shadow_t:s0"
    " tclass=file permissive=0"
)
LANDLOCK = (
    "audit: type=1423 audit(1796000003.000:48): domain=195ba459b blockers=fs.read_file"
    ' path="/etc/shadow" dev="vda1" ino=123'
)
LANDLOCK_DOMAIN = (
    "audit: type=1424 audit(1796000003.000:48): domain=195ba459b status=allocated mode=enforcing"
    ' pid=4711 uid=70000 exe="/usr/bin/qemu-system-x86_64" comm="qemu-system-x86"'
)


def kernel(message: str, **more: Any) -> dict[str, Any]:
    """An entry of the journal, by the kernel."""
    entry = {"_TRANSPORT": "kernel", "MESSAGE": message, "_BOOT_ID": BOOT}
    return {**entry, "__REALTIME_TIMESTAMP": WHEN, **more}


def verified(**more: str) -> dict[str, str]:
    entry = {"DOMAIN_NAME": WEB.name, "DOMAIN_UUID": WEB.uuid, "_BOOT_ID": BOOT}
    return {**entry, "VIRT_WARDEN_UID": "70000", "VIRT_WARDEN_PID": "4711", **more}


def found(*entries: dict[str, Any], known: tuple[dict[str, str], ...] = ()) -> list[Denial]:
    records = [each for each in map(record, entries) if each is not None]
    return list(denials(records, ran(known or (verified(),))))


@pytest.mark.parametrize(
    ("message", "by", "words"),
    [
        (SECCOMP, "seccomp", ("QEMU was ended",)),
        (APPARMOR, "AppArmor", ("open", "/etc/shadow")),
        (SELINUX, "SELinux", ("read", "file", "shadow")),
    ],
)
def test_a_denial_is_told_with_its_domain(message: str, by: str, words: tuple[str, ...]) -> None:
    (denial,) = found(kernel(message))
    assert (denial.domain, denial.by, denial.pid) == (WEB, by, "4711")
    assert all(word in denial.what for word in words)


def test_a_denial_of_landlock_is_of_the_process_that_made_its_domain() -> None:
    (denial,) = found(kernel(LANDLOCK), kernel(LANDLOCK_DOMAIN))
    assert (denial.domain, denial.by) == (WEB, "Landlock")
    assert denial.what == "fs.read_file /etc/shadow vda1"


@pytest.mark.parametrize(
    "message",
    [
        SECCOMP.replace("uid=70000", "uid=1000"),
        APPARMOR.replace("libvirt-", "not-").replace("fsuid=70000", "fsuid=0"),
        SELINUX.replace("svirt_tcg_t", "sshd_t"),
        SELINUX.replace("pid=4711", "pid=4712"),
        LANDLOCK,
        "a process says audit: type=1326 audit(1.0:1): uid=70000",
        "audit: type=1326 without an end",
        "audit: type=1300 audit(1796000000.123:45): uid=70000 syscall=101",
        APPARMOR.replace('"DENIED"', '"ALLOWED"'),
        SELINUX.replace("permissive=0", "permissive=1"),
        "usb 1-1: new device",
    ],
)
def test_what_is_no_domains_denial_is_none(message: str) -> None:
    assert found(kernel(message)) == []


def test_a_process_of_another_boot_with_the_same_pid_is_not_the_domains() -> None:
    assert found(kernel(SELINUX, _BOOT_ID="c" * 32)) == []


def test_a_denial_before_the_domain_was_checked_is_told_by_its_profile() -> None:
    (denial,) = found(kernel(APPARMOR), known=(verified(DOMAIN_UUID=xmls.OTHER),))
    assert denial.domain == Domain("", xmls.UUID)


def test_a_denial_to_a_program_that_qemu_executed_is_its_domains() -> None:
    helper = APPARMOR.replace(xmls.UUID, f"{xmls.UUID}//qemu_bridge_helper")
    (denial,) = found(kernel(helper.replace("fsuid=70000", "fsuid=0")))
    assert denial.domain.uuid == xmls.UUID


def test_a_users_own_profile_of_a_domains_name_is_no_domains() -> None:
    forged = APPARMOR.replace(" profile=", ' namespace="root//mine" profile=')
    forged = forged.replace("fsuid=70000", "fsuid=1000")
    assert found(kernel(forged)) == []


def test_a_record_that_came_by_two_ways_is_told_once() -> None:
    by_audit = {
        **kernel(APPARMOR.partition("): ")[2].join(["AVC ", ""])),
        "_TRANSPORT": "audit",
        "_AUDIT_TYPE": 1400,
        "_AUDIT_ID": 46,
    }
    assert len(found(kernel(APPARMOR), by_audit)) == 1
    assert len(found(by_audit)) == 1


def test_what_a_process_calls_itself_forges_nothing() -> None:
    """The kernel writes a name with a blank or a quote in hexadecimal."""
    forged = 'x" uid=70000 profile="libvirt-' + xmls.UUID
    message = SECCOMP.replace("uid=70000", "uid=1000").replace(
        '"qemu-system-x86"', forged.encode().hex()
    )
    assert found(kernel(message)) == []


def test_a_call_that_is_only_logged_did_not_end_qemu() -> None:
    logged = SECCOMP.replace("sig=31", "sig=0").replace("code=0x0", "code=0x7ffc0000")
    (denial,) = found(kernel(logged))
    assert denial.what.endswith("it was only logged")


# The audit


def states(*entries: dict[str, Any]) -> dict[str, State]:
    domain = read(xmls.domain().encode())
    return {item.id: item.state for item in attacks.judge(domain, found(*entries))}


def test_the_audit_tells_of_an_ended_qemu_apart_from_other_denials() -> None:
    assert states() == {"vm.ended": State.GOOD, "vm.denied": State.GOOD}
    assert states(kernel(SECCOMP)) == {"vm.ended": State.BAD, "vm.denied": State.GOOD}
    assert states(kernel(APPARMOR)) == {"vm.ended": State.GOOD, "vm.denied": State.BAD}
    assert attacks.ENDED.severity is Severity.HIGH


def test_the_audit_shows_the_last_ones() -> None:
    many = [
        kernel(APPARMOR.replace(":46)", f":{number})").replace("shadow", f"file{number}"))
        for number in range(10)
    ]
    domain = read(xmls.domain().encode())
    (_, item) = attacks.judge(domain, found(*many))
    assert item.seen.startswith("10, the last: ")
    assert "file9" in item.seen
    assert "file6" not in item.seen


def test_a_denial_of_another_domain_is_not_this_ones() -> None:
    domain = read(xmls.domain(uuid=xmls.OTHER, name="db01").encode())
    assert {item.state for item in attacks.judge(domain, found(kernel(SECCOMP)))} == {State.GOOD}


def test_the_log_has_them_between_the_other_events(monkeypatch: pytest.MonkeyPatch) -> None:
    from virtwarden.audit import events

    early, late = (WHEN + timedelta(minutes=minutes) for minutes in (-1, 1))
    logged = [
        {"__REALTIME_TIMESTAMP": when, "DOMAIN_NAME": "web01", "VIRT_WARDEN_EVENT": "verified"}
        for when in (early, late)
    ]
    monkeypatch.setattr(events, "_logged", lambda domain, wanted: iter(logged))
    monkeypatch.setattr(events, "denied", lambda: found(kernel(SECCOMP)))
    told = [entry["VIRT_WARDEN_EVENT"] for entry in events.entries("web01", [])]
    assert told == ["verified", "denied", "verified"]
    assert [e["VIRT_WARDEN_EVENT"] for e in events.entries("web01", ["denied"])] == ["denied"]
    assert list(events.entries("db01", ["denied"])) == []


def test_a_call_that_is_refused_is_told_and_ended_nothing() -> None:
    refused = kernel(SECCOMP.replace("sig=31", "sig=0").replace("code=0x0", "code=0x50026"))
    (denial,) = found(refused)
    assert denial.what.endswith("it was refused")
    assert states(refused) == {"vm.ended": State.GOOD, "vm.denied": State.BAD}


def test_a_call_of_another_architecture_is_told_by_its_number() -> None:
    (denial,) = found(kernel(SECCOMP.replace("arch=c000003e", "arch=40000003")))
    assert denial.what == "system call number 101; QEMU was ended"

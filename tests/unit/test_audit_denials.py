# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel denied, told with its domain; the lines are the kernel's own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import xmls

from virtwarden.audit import attacks, events
from virtwarden.audit.denials import Denial, Owner, Owners, denials, told
from virtwarden.audit.item import State
from virtwarden.domain.model import read
from virtwarden.errors import HostError
from virtwarden.system import users

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
STAMP = "audit(1795953600.123:45): "
SECCOMP = (
    'auid=4294967295 uid=70000 gid=70000 ses=4294967295 subj=unconfined pid=4711 comm="CPU 0/TCG"'
    ' exe="/usr/bin/qemu-system-x86_64" sig=31 arch=c000003e syscall=101 compat=0'
    " ip=0x7f0 code=0x80000000"
)
SOFT = SECCOMP.replace("sig=31", "sig=0").replace("0x80000000", "0x50026")
LOGGED = SECCOMP.replace("sig=31", "sig=0").replace("0x80000000", "0x7ffc0000")
APPARMOR = (
    f'apparmor="DENIED" operation="open" class="file" profile="libvirt-{xmls.UUID}"'
    ' name="/etc/shadow" pid=4711 comm="qemu-system-x86" requested_mask="r" denied_mask="r"'
    " fsuid=70000 ouid=0"
)
SELINUX = (
    'avc:  denied  { read write } for  pid=4711 comm="qemu" name="shadow" dev="vda1" ino=12'
    " scontext=system_u:system_r:svirt_t:s0:c1,c2 tcontext=system_u:object_r:shadow_t:s0"
    " tclass=file permissive=0"
)
SANDBOX = (
    "domain=195ba459b status=allocated mode=enforcing pid=4711 uid=70000"
    ' exe="/usr/bin/python3.13" comm="qemu-system-x86"'
)
LANDLOCK = 'domain=195ba459b blockers=fs.read_file path="/etc/shadow" dev="vda1" ino=12'
WEB = Owner("web01", xmls.UUID)


def kernel(kind: int, text: str, **more: Any) -> dict[str, Any]:
    message = f"audit: type={kind} {STAMP}{text}"
    stamp = {"__REALTIME_TIMESTAMP": NOON}
    return {"_TRANSPORT": "kernel", "MESSAGE": message, **stamp, **more}


def by_socket(kind: int, text: str) -> dict[str, Any]:
    name = {1326: "SECCOMP", 1400: "AVC"}[kind]
    return {"_TRANSPORT": "audit", "_AUDIT_TYPE": str(kind), "MESSAGE": f"{name} {text}"}


def verified(**more: Any) -> dict[str, Any]:
    return {
        "DOMAIN_NAME": "web01",
        "DOMAIN_UUID": xmls.UUID,
        "VIRT_WARDEN_EVENT": "verified",
        "VIRT_WARDEN_UID": "70000",
        "VIRT_WARDEN_PID": "4711",
        "__REALTIME_TIMESTAMP": NOON - timedelta(hours=1),
    } | more


def seen(*entries: dict[str, Any]) -> list[Denial]:
    return [denial for _, denial in denials(entries)]


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (1326, SECCOMP, Denial("seccomp", "ended it for the system call ptrace", 70000, 4711)),
        (1326, SOFT, Denial("seccomp", "refused the system call ptrace", 70000, 4711)),
        (1326, LOGGED, Denial("seccomp", "would refuse the system call ptrace", 70000, 4711)),
        (1400, APPARMOR, Denial("AppArmor", "open /etc/shadow", 70000, 4711, xmls.UUID)),
        (1400, SELINUX, Denial("SELinux", "read write of file shadow", None, 4711)),
    ],
)
@pytest.mark.parametrize("source", [kernel, by_socket])
def test_a_denial_says_by_what_and_whose(
    source: Any, kind: int, text: str, expected: Denial
) -> None:
    assert seen(source(kind, text)) == [expected]


def test_landlocks_denial_is_of_the_process_whose_sandbox_it_is() -> None:
    expected = Denial("Landlock", "fs.read_file /etc/shadow", 70000, 4711)
    assert seen(kernel(1424, SANDBOX), kernel(1423, LANDLOCK)) == [expected]
    (orphan,) = seen(kernel(1423, LANDLOCK))
    assert (orphan.uid, orphan.pid) == (None, None)


@pytest.mark.parametrize(
    "entry",
    [
        kernel(1400, APPARMOR.replace("DENIED", "ALLOWED")),
        kernel(1400, APPARMOR.replace("DENIED", "STATUS")),
        kernel(1400, SELINUX.replace("denied", "granted")),
        kernel(1327, 'proctitle="x"'),
        {"_TRANSPORT": "kernel", "MESSAGE": "br0: port 1(vnet0) entered disabled state"},
        {"_TRANSPORT": "kernel", "MESSAGE": f"someone: audit: type=1326 {STAMP}{SECCOMP}"},
        {"_TRANSPORT": "audit", "_AUDIT_TYPE": "1300", "MESSAGE": SECCOMP},
        {"_TRANSPORT": "kernel"},
    ],
)
def test_nothing_else_is_a_denial(entry: dict[str, Any]) -> None:
    assert seen(entry) == []


def test_a_process_cannot_name_another_as_its_doer() -> None:
    """What says whose it is stands before what a process chooses; blanks come in hexadecimal."""
    (found,) = seen(kernel(1326, SECCOMP + " uid=1 pid=1 syscall=0"))
    assert (found.uid, found.pid) == (70000, 4711)
    forged = APPARMOR.replace('"/etc/shadow"', f'"/x/profile=libvirt-{xmls.OTHER}"')
    (found,) = seen(kernel(1400, forged))
    assert found.domain == xmls.UUID


# Whose


def test_the_domain_is_found_by_uid_by_profile_and_by_process() -> None:
    owners = Owners.of([verified()])
    for denial in (
        Denial("seccomp", "x", uid=70000),
        Denial("AppArmor", "x", uid=64055, domain=xmls.UUID),
        Denial("SELinux", "x", pid=4711),
    ):
        assert owners.of_denial(denial) == WEB
    for denial in (Denial("seccomp", "x", uid=1000, pid=4711), Denial("SELinux", "x", pid=1)):
        assert owners.of_denial(denial) is None


def test_a_pid_is_that_of_the_last_domain_that_had_it() -> None:
    later = verified(DOMAIN_NAME="db01", DOMAIN_UUID=xmls.OTHER, VIRT_WARDEN_UID="70001")
    owners = Owners.of([verified(), later])
    assert owners.of_denial(Denial("SELinux", "x", pid=4711)) == Owner("db01", xmls.OTHER)
    assert owners.of_denial(Denial("seccomp", "x", uid=70000)) == WEB


def test_a_qemu_that_ended_before_its_first_check_is_found_by_its_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(users, "domain_of", lambda uid: xmls.UUID if uid == 70000 else "")
    assert Owners.of([]).of_denial(Denial("seccomp", "x", uid=70000)) == Owner("-", xmls.UUID)


# In the log and in the audit


class Reader:
    """The journal, made of entries; it knows matches of one field."""

    def __init__(self, entries: list[dict[str, Any]]) -> None:
        self._entries = entries
        self._kinds: set[str] = set()

    def add_match(self, **match: Any) -> None:
        self._kinds |= {str(value) for key, value in match.items() if key == "_TRANSPORT"}

    def seek_realtime(self, since: datetime) -> None:
        self._entries = [e for e in self._entries if e["__REALTIME_TIMESTAMP"] >= since]

    def add_conjunction(self) -> None: ...
    def add_disjunction(self) -> None: ...

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self._kinds:
            return (e for e in self._entries if e.get("_TRANSPORT") in self._kinds)
        return (e for e in self._entries if "_TRANSPORT" not in e)


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = [verified()]
    monkeypatch.setattr(events, "_reader", lambda: Reader(entries))
    return entries


def test_denials_stand_in_the_log_where_they_came(journal: list[dict[str, Any]]) -> None:
    journal.append(kernel(1326, SECCOMP))
    journal.append(kernel(1326, SECCOMP.replace("70000", "1000")))
    journal.append(verified(__REALTIME_TIMESTAMP=NOON + timedelta(hours=1)))
    found = [entry["VIRT_WARDEN_EVENT"] for entry in events.entries(None, [])]
    assert found == ["verified", "denied", "verified"]
    (denied,) = events.entries("web01", ["denied"])
    assert (denied["DOMAIN_NAME"], denied["DOMAIN_UUID"]) == ("web01", xmls.UUID)
    assert denied["VIRT_WARDEN_BY"] == "seccomp"
    assert denied["VIRT_WARDEN_PID"] == "4711"
    assert [*events.entries("db01", ["denied"])] == []
    assert [e["VIRT_WARDEN_EVENT"] for e in events.entries(None, ["verified"])] == ["verified"] * 2


def test_an_entry_has_the_kernels_own_line() -> None:
    entry = kernel(1326, SECCOMP)
    ((_, denial),) = denials([entry])
    assert told(entry, denial, WEB)["MESSAGE"] == entry["MESSAGE"]


def test_the_audit_names_what_was_denied_of_late(journal: list[dict[str, Any]]) -> None:
    domain = read(xmls.domain().encode())
    assert [item.state for item in attacks.checks([domain])] == [State.GOOD]
    now = datetime.now(UTC)
    journal += [kernel(1326, SECCOMP, __REALTIME_TIMESTAMP=now)] * 2
    journal.append(kernel(1400, APPARMOR, __REALTIME_TIMESTAMP=now))
    journal.append(kernel(1326, SOFT, __REALTIME_TIMESTAMP=now - timedelta(days=8)))
    (item,) = attacks.checks([domain])
    assert item.state is State.BAD
    assert "seccomp: ended it for the system call ptrace (2 times)" in item.seen
    assert "AppArmor: open /etc/shadow (1 times)" in item.seen
    assert "refused" not in item.seen


def test_without_a_journal_the_audit_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise HostError("the journal cannot be read", fix="x")

    monkeypatch.setattr(events, "_reader", fail)
    (item,) = attacks.checks([read(xmls.domain().encode())])
    assert item.state is State.UNKNOWN

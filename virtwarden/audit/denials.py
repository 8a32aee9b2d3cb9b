# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel denied to VMs' processes: its own lines in the systemd journal.

The kernel writes them where no audit daemon takes them: AppArmor's and SELinux's denials (audit
type 1400), seccomp's (1326), and from Linux 6.15 on Landlock's (1423, and 1424 for whose a sandbox
is). Where auditd runs, they are in /var/log/audit instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from virtwarden.system import seccomp, users

EVENT = "denied"
Entry = Mapping[str, Any]

# include/uapi/linux/audit.h
_SECCOMP, _AVC, _LANDLOCK_ACCESS, _LANDLOCK_DOMAIN = "1326", "1400", "1423", "1424"
_TYPES = frozenset({_SECCOMP, _AVC, _LANDLOCK_ACCESS, _LANDLOCK_DOMAIN})
_KERNELS_LINE = re.compile(r"audit: type=(\d+) audit\([0-9.:]+\): (.*)", re.DOTALL)
# The kernel writes in hexadecimal what a process could have put a quote or a blank into.
_PAIR = re.compile(r'([a-z_]+)=("[^"]*"|\S+)')
_SELINUX_DENIED = re.compile(r"avc:\s+denied\s+\{ ([a-z_ ]+?) \}")
_LIBVIRT_PROFILE = "libvirt-"
_LOGGED = frozenset({"0x7ffc0000"})  # linux/seccomp.h, SECCOMP_RET_LOG
_WARNING = 4


@dataclass(frozen=True)
class Denial:
    """One line of the kernel's: by what a process was denied what, and whose it is."""

    by: str
    what: str
    uid: int | None = None
    pid: int | None = None
    domain: str = ""
    """The domain's UUID, where its AppArmor profile tells it."""


@dataclass(frozen=True)
class Owner:
    """A domain as the events of the log know it."""

    name: str
    uuid: str


@dataclass
class Owners:
    """Which uid and process is which domain's, by the log's `verified` events.

    No uid is used twice; a pid is, so the last domain that had it counts.
    """

    by_uid: dict[int, Owner]
    by_pid: dict[int, Owner]
    by_uuid: dict[str, Owner]

    @classmethod
    def of(cls, verified: Iterable[Entry]) -> Owners:
        """From the events, the oldest first."""
        found = cls({}, {}, {})
        for entry in verified:
            owner = Owner(str(entry.get("DOMAIN_NAME", "-")), str(entry.get("DOMAIN_UUID", "")))
            found.by_uuid[owner.uuid] = owner
            for key, by in (("UID", found.by_uid), ("PID", found.by_pid)):
                number = str(entry.get(f"VIRT_WARDEN_{key}", ""))
                if number.isdecimal():
                    by[int(number)] = owner
        return found

    def of_denial(self, denial: Denial) -> Owner | None:
        """Whose process was denied something; None where it was none of a VM."""
        if denial.domain:
            return self.by_uuid.get(denial.domain, Owner("-", denial.domain))
        if denial.uid is not None:
            return self.by_uid.get(denial.uid) or self._never_verified(denial.uid)
        return self.by_pid.get(denial.pid) if denial.pid is not None else None

    def _never_verified(self, uid: int) -> Owner | None:
        """The domain whose QEMU was stopped before its first check."""
        domain = users.domain_of(uid)
        return self.by_uuid.get(domain, Owner("-", domain)) if domain else None


def denials(untrusted_entries: Iterable[Entry]) -> Iterator[tuple[Entry, Denial]]:
    """Each denial among the journal's entries of the kernel and of its audit, in their order.

    A process chooses its name and its files' names. The kernel quotes these, and what says whose it
    is comes before them in a line, so of several values of a key the first counts.
    """
    sandboxes: dict[str, dict[str, str]] = {}
    for entry in untrusted_entries:
        kind, text = _line(entry)
        if kind not in _TYPES:
            continue
        pairs: dict[str, str] = {}
        for key, value in _PAIR.findall(text):
            pairs.setdefault(key, value.strip('"'))
        if kind == _LANDLOCK_DOMAIN:
            sandboxes[pairs.get("domain", "")] = pairs
            continue
        if kind == _LANDLOCK_ACCESS:
            pairs = sandboxes.get(pairs.get("domain", ""), {}) | pairs
        denial = _READERS[kind](pairs, text)
        if denial is not None:
            yield entry, denial


def told(entry: Entry, denial: Denial, owner: Owner) -> dict[str, Any]:
    """A denial as an entry of our own log."""
    return {
        "__REALTIME_TIMESTAMP": entry["__REALTIME_TIMESTAMP"],
        "DOMAIN_NAME": owner.name,
        "DOMAIN_UUID": owner.uuid,
        "MESSAGE": str(entry.get("MESSAGE", "")),
        "PRIORITY": _WARNING,
        "VIRT_WARDEN_EVENT": EVENT,
        "VIRT_WARDEN_BY": denial.by,
        "VIRT_WARDEN_WHAT": denial.what,
        **({} if denial.pid is None else {"VIRT_WARDEN_PID": str(denial.pid)}),
    }


def _line(entry: Entry) -> tuple[str, str]:
    """The audit type of a line and its text, from the kernel's log or from the audit's socket."""
    text = str(entry.get("MESSAGE", ""))
    if entry.get("_TRANSPORT") == "audit":
        return str(entry.get("_AUDIT_TYPE", "")), text
    found = _KERNELS_LINE.match(text)
    return (found[1], found[2]) if found else ("", "")


def _seccomp(pairs: Mapping[str, str], _: str) -> Denial:
    number = pairs.get("syscall", "")
    name = seccomp.call_name(int(number)) if number.isdecimal() else ""
    if pairs.get("code") in _LOGGED:
        verdict = "would refuse"
    else:
        verdict = "refused" if pairs.get("sig") == "0" else "ended it for"
    what = f"{verdict} the system call {name or number}"
    return Denial("seccomp", what, _number(pairs, "uid"), _number(pairs, "pid"))


def _mandatory(pairs: Mapping[str, str], text: str) -> Denial | None:
    if "apparmor" in pairs:
        return _apparmor(pairs)
    found = _SELINUX_DENIED.search(text)
    if not found:
        return None
    what = f"{found[1]} of {pairs.get('tclass', 'something')}"
    what += _named(pairs, "path", "name")
    return Denial("SELinux", what, pid=_number(pairs, "pid"))


def _apparmor(pairs: Mapping[str, str]) -> Denial | None:
    if pairs["apparmor"] != "DENIED":
        return None
    profile = pairs.get("profile", "").partition("//")[0]
    domain = profile.removeprefix(_LIBVIRT_PROFILE) if profile.startswith(_LIBVIRT_PROFILE) else ""
    what = pairs.get("operation", "something") + _named(pairs, "name", "capname", "peer")
    return Denial("AppArmor", what, _number(pairs, "fsuid"), _number(pairs, "pid"), domain)


def _landlock(pairs: Mapping[str, str], _: str) -> Denial:
    what = pairs.get("blockers", "something") + _named(pairs, "path", "dest", "ocomm")
    return Denial("Landlock", what, _number(pairs, "uid"), _number(pairs, "pid"))


_READERS = {_SECCOMP: _seccomp, _AVC: _mandatory, _LANDLOCK_ACCESS: _landlock}


def _named(pairs: Mapping[str, str], *keys: str) -> str:
    return next((f" {pairs[key]}" for key in keys if pairs.get(key)), "")


def _number(pairs: Mapping[str, str], key: str) -> int | None:
    value = pairs.get(key, "")
    return int(value) if value.isdecimal() else None

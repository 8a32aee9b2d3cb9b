# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel denied to VMs, from its audit records in the systemd journal.

A record tells the process, not the domain. Whose it was is known from the uid, which no other
domain ever has, from AppArmor's profile, whose name is the domain's UUID, or from the pid of the
QEMU that virt-warden checked at its start.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from virtwarden.system import seccomp

# linux/audit.h: AUDIT_SECCOMP, AUDIT_AVC, AUDIT_LANDLOCK_ACCESS and AUDIT_LANDLOCK_DOMAIN.
SECCOMP, AVC, LANDLOCK_ACCESS, LANDLOCK_DOMAIN = 1326, 1400, 1423, 1424
# linux/seccomp.h: SECCOMP_RET_LOG
_LOGGED = "0x7ffc0000"
TYPES = (SECCOMP, AVC, LANDLOCK_ACCESS, LANDLOCK_DOMAIN)
# As the kernel's own log has it: `audit: type=1326 audit(1700000000.123:45): auid=…`.
_IN_KERNEL_LOG = re.compile(r"audit: type=(\d+) audit\(([\d.]+:\d+)\): (.*)", re.DOTALL)
# A name that a process chose is in quotes, or in hexadecimal where it has a blank or a quote.
_FIELD = re.compile(r'(\w+)=("[^"]*"|\S+)')
# A program that QEMU executes, such as its helper for bridges, has a profile behind QEMU's own.
_PROFILE = re.compile(r"libvirt-([0-9a-f-]{36})(?://\w+)?")
_SELINUX = re.compile(r"denied\s+\{ ([^}]*) \}")


@dataclass(frozen=True)
class Domain:
    """A domain that ran, as the log names it."""

    name: str
    uuid: str


@dataclass(frozen=True)
class Ran:
    """Whose a uid and a profile are, and whose a process was in one boot."""

    by_uid: Mapping[str, Domain] = field(default_factory=dict)
    by_uuid: Mapping[str, Domain] = field(default_factory=dict)
    by_process: Mapping[tuple[str, str], Domain] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """One audit record: its type, its id in this boot, and its fields as the kernel wrote them."""

    when: datetime
    boot: str
    type: int
    id: str
    text: str

    @property
    def fields(self) -> dict[str, str]:
        """The fields by name, without quotes."""
        return {name: value.strip('"') for name, value in _FIELD.findall(self.text)}


@dataclass(frozen=True)
class Denial:
    """One thing that the kernel denied to a domain's process, in words.

    `has_ended`: the kernel ended the process for it.
    """

    when: datetime
    domain: Domain
    by: str
    what: str
    pid: str
    text: str
    has_ended: bool


def ran(verified: Iterable[Mapping[str, Any]]) -> Ran:
    """Whose uids and processes are whose, from the log's `verified` events."""
    by_uid: dict[str, Domain] = {}
    by_uuid: dict[str, Domain] = {}
    by_process: dict[tuple[str, str], Domain] = {}
    for entry in verified:
        domain = Domain(str(entry.get("DOMAIN_NAME", "")), str(entry.get("DOMAIN_UUID", "")))
        by_uid[str(entry.get("VIRT_WARDEN_UID", ""))] = domain
        by_uuid[domain.uuid] = domain
        by_process[_boot(entry), str(entry.get("VIRT_WARDEN_PID", ""))] = domain
    by_uid.pop("", None)
    return Ran(by_uid, by_uuid, by_process)


def record(entry: Mapping[str, Any]) -> Record | None:
    """The audit record in an entry of the journal, or None: the kernel says other things too."""
    message = str(entry.get("MESSAGE", ""))
    when = entry["__REALTIME_TIMESTAMP"]
    if entry.get("_TRANSPORT") == "audit":
        kind, number = str(entry.get("_AUDIT_TYPE", "")), str(entry.get("_AUDIT_ID", ""))
        text = message
    else:
        found = _IN_KERNEL_LOG.match(message)
        if found is None:
            return None
        kind, number, text = found.groups()
    if not kind.isdecimal() or int(kind) not in TYPES:
        return None
    return Record(when, _boot(entry), int(kind), number.rpartition(":")[2], text)


def denials(records: Iterable[Record], known: Ran) -> Iterator[Denial]:
    """The denials among the records that were of VMs, each once, in the order of the records.

    Where the audit daemon's and the kernel's log both reach the journal, a record comes twice.
    """
    found = list({(each.boot, each.type, each.id): each for each in records}.values())
    creators = {
        (each.boot, each.fields.get("domain", "")): each.fields
        for each in found
        if each.type == LANDLOCK_DOMAIN
    }
    for each in found:
        if each.type == LANDLOCK_DOMAIN:
            continue
        words = each.fields
        if each.type == LANDLOCK_ACCESS:
            words = {**creators.get((each.boot, words.get("domain", "")), {}), **words}
        domain = _domain(each, words, known)
        told = _told(each, words)
        if domain is not None and told is not None:
            by, what = told
            has_ended = each.type == SECCOMP and _has_ended(words)
            yield Denial(each.when, domain, by, what, words.get("pid", ""), each.text, has_ended)


def _domain(each: Record, words: Mapping[str, str], known: Ran) -> Domain | None:
    profile = _PROFILE.fullmatch(words.get("profile", ""))
    # In a namespace of their own, users give profiles whatever names.
    if profile is not None and "namespace" not in words:
        return known.by_uuid.get(profile[1]) or Domain("", profile[1])
    own = known.by_uid.get(words.get("uid", words.get("fsuid", "")))
    if own is not None:
        return own
    if ":svirt" in words.get("scontext", ""):
        return known.by_process.get((each.boot, words.get("pid", "")))
    return None


def _told(each: Record, words: Mapping[str, str]) -> tuple[str, str] | None:
    if each.type == SECCOMP:
        return "seccomp", f"{_call(words)}; {_verdict(words)}"
    if each.type == LANDLOCK_ACCESS:
        return "Landlock", _pieces(words, "blockers", "path", "dev", "dest", "opid", "ocomm")
    if words.get("apparmor") == "DENIED":
        what = _pieces(words, "operation", "name", "requested_mask", "peer", "capname", "family")
        return "AppArmor", what
    selinux = _SELINUX.search(each.text)
    if selinux is not None and words.get("permissive") != "1":
        return "SELinux", f"{selinux[1]} {_pieces(words, 'tclass', 'path', 'name', 'tcontext')}"
    return None


def _call(words: Mapping[str, str]) -> str:
    number = words.get("syscall", "?")
    name = seccomp.call_name(int(number), words.get("arch", "")) if number.isdecimal() else ""
    return f"system call {name}" if name else f"system call number {number}"


def _has_ended(words: Mapping[str, str]) -> bool:
    return words.get("sig", "0") != "0"


def _verdict(words: Mapping[str, str]) -> str:
    if _has_ended(words):
        return "QEMU was ended"
    return "it was only logged" if words.get("code") == _LOGGED else "it was refused"


def _pieces(words: Mapping[str, str], *names: str) -> str:
    return " ".join(words[name] for name in names if name in words)


def _boot(entry: Mapping[str, Any]) -> str:
    return str(entry.get("_BOOT_ID", "")).replace("-", "")

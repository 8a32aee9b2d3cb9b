# SPDX-License-Identifier: GPL-2.0-or-later
"""Guard `identity`: each VM's QEMU runs as its own user."""

from __future__ import annotations

import re
from pathlib import Path

from virtwarden.changes import (
    Change,
    CreateUser,
    GiveMade,
    GrantAccess,
    MakeDirectory,
    TakeDirectory,
)
from virtwarden.errors import Refusal
from virtwarden.guards.base import SUPPLEMENTARY_GROUPS, Case, Op
from virtwarden.guards.pathways import search_grants
from virtwarden.system.process import Process
from virtwarden.system.users import Account

NAME = "identity"

# useradd(8), CAVEATS: at most 32 characters
_LONGEST_NAME = 32
_NOT_IN_A_NAME = re.compile(r"[^a-z0-9-]")


def candidates(prefix: str, domain_name: str, uuid: str) -> tuple[str, ...]:
    """The names that a domain's user may have, the best one first.

    The first is the prefix and the domain's name, if that is a valid user name. If it is not, or if
    another domain's user has it, a part of the UUID follows; then as much of the UUID as fits.
    """
    plain = prefix + domain_name
    clean = _NOT_IN_A_NAME.sub("-", domain_name.lower())
    suffix = f"-{uuid[:8]}"
    told_apart = f"{prefix}{clean}"[: _LONGEST_NAME - len(suffix)] + suffix
    last = prefix + uuid.replace("-", "")[len(prefix) - _LONGEST_NAME :]
    if domain_name and clean == domain_name and len(plain) <= _LONGEST_NAME:
        return plain, told_apart, last
    return told_apart, last


def review(case: Case) -> list[Refusal]:
    name = case.user
    if not name or not _is_enrolled(case):
        return [case.refusal("it is not enrolled", fix=_of_unenrolled(case))]
    if case.adopted and (lacking := case.facts.cannot_adopt()):
        what = f"it is not enrolled, and it cannot get a user at its start: {lacking}"
        again = ", then start it again" if case.facts.is_defined(case.domain.name) else ""
        return [case.refusal(what, fix=case.enrol + again)]
    account = case.facts.account(name)
    if account is not None and account.domain == case.domain.uuid:
        return _review_account(case, account)
    if account is not None:
        return [case.refusal(f"user {name} is not this domain's own", fix=case.enrol)]
    if name not in candidates(case.rules.user_prefix, case.domain.name, case.domain.uuid):
        return [case.refusal(f"user {name} is not one that virt-warden made", fix=case.enrol)]
    if case.facts.group_id(name) is not None:
        return [case.refusal(f"group {name} is not this domain's own", fix=case.enrol)]
    return []


def _of_unenrolled(case: Case) -> str:
    if case.facts.is_defined(case.domain.name):
        return case.enrol
    return f"remove its <emulator>, and libvirt takes virt-warden's; or {case.enrol}"


def _is_enrolled(case: Case) -> bool:
    own = (f"{case.user}:{case.user}", "yes")
    found = [label for label in case.domain.labels if label.model == "dac"]
    return [(label.label, label.relabel) for label in found] == [own]


def _review_account(case: Case, account: Account) -> list[Refusal]:
    lowest, highest = case.rules.uid_range
    if lowest <= account.uid <= highest:
        return []
    return [
        case.refusal(
            f"user {account.name} has uid {account.uid}, outside uid_range, {lowest} to {highest}",
            where=case.rules.where("identity.uid_range"),
            fix="widen uid_range so that it contains all uids that were given before",
        )
    ]


def plan(case: Case) -> list[Change]:
    if case.op is Op.PREPARE:
        # QEMU's master key is below it.
        return [*_cell(case), *_enter(case, case.paths.libvirt_state)]
    if case.op is Op.START and case.domain.has_emulated_tpm:
        # The TPM's socket is in it; libvirt makes it between `prepare` and `start`.
        return [*_enter(case, case.paths.libvirt_run / "swtpm")]
    if case.op is Op.ADOPT:
        return [GiveMade(case.short_name, case.user)]
    if case.op is Op.STARTED:
        return [*_take_directories(case)]
    return []


def _take_directories(case: Case) -> list[TakeDirectory]:
    """libvirt connects, as root, to the sockets that it made there: it would follow a symlink.

    It gives the directories to the domain's user, for sockets that QEMU makes when it starts.
    """
    return [
        TakeDirectory(each.path, each.device, each.number)
        for each in case.facts.directories_of(case.domain.id)
        if each.uid != 0
    ]


def _cell(case: Case) -> list[Change]:
    changes: list[Change] = []
    if case.account is None:
        changes.append(
            CreateUser(
                name=case.user,
                domain=case.domain.uuid,
                uid_range=case.rules.uid_range,
                groups=tuple(n for n in SUPPLEMENTARY_GROUPS if case.facts.group_id(n) is not None),
            )
        )
    return [*changes, MakeDirectory(path=case.cell, user=case.user)]


def _enter(case: Case, directory: Path) -> list[GrantAccess]:
    """ACL entries for directories that otherwise only libvirt's own QEMU user may enter."""
    found = case.facts.look(str(directory))
    steps = (*found.directories, *([found.leaf] if found.leaf else []))
    return search_grants(steps, case.user)


def verify(case: Case, process: Process) -> list[str]:
    account = case.account
    if account is None:
        return [f"there is no user {case.user} of this domain's own"]
    breaches = []
    if set(process.uids) != {account.uid}:
        breaches.append(f"QEMU's uids are {process.uids}, not all {account.uid}")
    if set(process.gids) != {account.gid}:
        breaches.append(f"QEMU's gids are {process.gids}, not all {account.gid}")
    foreign = set(process.groups) - set(case.facts.groups_of(account))
    if foreign:
        breaches.append(f"QEMU is in groups {sorted(foreign)} that its user is not in")
    if process.capabilities:
        breaches.append(f"QEMU holds capabilities {process.capabilities:#x}")
    return breaches + _verify_directories(case)


def _verify_directories(case: Case) -> list[str]:
    breaches = []
    for each in case.facts.directories_of(case.domain.id):
        if each.uid != 0:
            breaches.append(f"{each.path}, with libvirt's sockets, belongs to uid {each.uid}")
        breaches += [
            f"{link} is a symlink, which libvirt would follow to another socket"
            for link in case.facts.links_in(each.path)
        ]
    return breaches

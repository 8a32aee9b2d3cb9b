# SPDX-License-Identifier: GPL-2.0-or-later
"""What the next start of a domain would be refused for, once the domain is enrolled.

A domain that nobody enrolled yet is enrolled here in memory alone, and the guards review that. So
this tells what will be in the way, not that the domain has to be enrolled first.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from virtwarden import lifecycle
from virtwarden.changes import CreateUser, GrantAccess
from virtwarden.domain.model import Domain, read
from virtwarden.enrolment import adopting, passwords
from virtwarden.enrolment.enrol import enrol_xml
from virtwarden.errors import HostError, JournalError, Refusal, WardenError
from virtwarden.guards import boot, host, identity, luks, sandbox, storage, ticket
from virtwarden.guards.base import Case, Guard, Op
from virtwarden.guards.facts import HostFacts
from virtwarden.luks.containers import plain_uses
from virtwarden.paths import Paths
from virtwarden.policy import Mode, Rules
from virtwarden.system import filesystems
from virtwarden.words import shown

# Where one of these has a reason against a domain, its own user may not be able to open what it
# needs, while libvirt's user, to whom libvirt gives everything, can.
_OF_ITS_USER: tuple[Guard, ...] = (identity, luks, storage, boot, host, sandbox)

# What these find in XML that is not enrolled, enrolment itself mostly sets right.
_ENROLMENTS_OWN: tuple[Guard, ...] = (identity, storage, boot, sandbox)

# On Debian this starts the plain QEMU of the host's architecture.
_KVM = "/usr/bin/kvm"


@dataclass(frozen=True)
class NextStart:
    """The reasons against a domain's next start; none where it would be let through.

    `may_lack_access` says that its own user might not be able to open what the domain needs.
    """

    reasons: tuple[WardenError, ...]
    may_lack_access: bool


def foresee(paths: Paths, rules: Rules, untrusted_xml: bytes) -> NextStart:
    """What enforcing mode would have against a domain. Alters nothing.

    Raises DomainError where the XML is not that of a domain, or is beyond what may be read.
    """
    former = read(untrusted_xml)
    rules = replace(rules, mode=Mode.ENFORCING)
    emulator = _of_emulator(former, rules, paths)
    reviews, others = _once_enrolled(paths, rules, untrusted_xml)
    refusals = [refusal for found in reviews.values() for refusal in found]
    may_lack_access = (
        bool(emulator or others)
        or any(reviews.get(guard) for guard in _OF_ITS_USER)
        or any(map(filesystems.may_refuse_owners, _given_paths(former, rules)))
    )
    reasons = (*emulator, *_of_password(untrusted_xml, rules), *others, *refusals)
    return NextStart(reasons, may_lack_access)


def _once_enrolled(
    paths: Paths, rules: Rules, untrusted_xml: bytes
) -> tuple[Mapping[Guard, list[Refusal]], list[WardenError]]:
    """What the guards will refuse, and what else keeps the domain's own user from its files.

    Where the domain cannot be enrolled, that is the reason, and of the guards only those are asked
    that do not depend on it.
    """
    try:
        enrolled = read(enrol_xml(untrusted_xml, rules.user_prefix, paths, via=rules.via))
    except (WardenError, OSError) as error:
        found = lifecycle.lenient_reviews(case_before_start(paths, rules, read(untrusted_xml)))
        rest = {guard: found[guard] for guard in found if guard not in _ENROLMENTS_OWN}
        return rest, [error if isinstance(error, WardenError) else HostError(str(error))]
    case = case_before_start(paths, rules, enrolled)
    found = lifecycle.lenient_reviews(case)
    return found, [] if found[storage] else _without_acls(case)


def try_owners(rules: Rules, untrusted_xml: bytes) -> list[WardenError]:
    """What a review cannot see: file systems whose files cannot be given to a domain's user.

    Makes a file beside each of the domain's files that are on such a one, for a moment.
    """
    uid = rules.uid_range[0]
    domain = read(untrusted_xml)
    return [
        Refusal(
            "its file system does not let a file belong to the domain's own user"
            f"{filesystems.of_kind(path)}",
            where=path,
            fix=f"see how it is mounted: findmnt -T {shown(path)}; {filesystems.ways_out(path)}",
        )
        for path in _given_paths(domain, rules)
        if filesystems.may_refuse_owners(path)
        and not filesystems.keeps_owners(Path(path).parent, uid)
    ]


def untried(rules: Rules, untrusted_xml: bytes) -> list[str]:
    """What only a try tells, a sentence for each file: see `try_owners`."""
    domain = read(untrusted_xml)
    return [
        f"{shown(domain.name)}: only a try tells whether {path} can belong to its user"
        f"{filesystems.of_kind(path)}: virt-warden enrol {shown(domain.name)}"
        for path in _given_paths(domain, rules)
        if filesystems.may_refuse_owners(path)
    ]


def _given_paths(domain: Domain, rules: Rules) -> list[str]:
    """The files that a start gives to the domain's user, or keeps from others."""
    return [
        use.path
        for use in plain_uses(domain, rules)
        if not (use.shared and _is_for_everybody(use.path))
    ]


def _is_for_everybody(path: str) -> bool:
    try:
        return bool(Path(path).stat().st_mode & stat.S_IROTH)
    except (OSError, ValueError):
        return False


def case_before_start(paths: Paths, rules: Rules, domain: Domain) -> Case:
    """A domain that does not run, as `prepare` will find it."""
    return Case(Op.PREPARE, domain, rules, _FactsBeforeStart(paths, domain.uuid), paths)


def _without_acls(case: Case) -> list[WardenError]:
    """What no guard sees before it acts: what can have no ACL entry for the domain's user."""
    try:
        planned = lifecycle.plan(case, [storage, boot])
    except WardenError as error:
        return [error]
    found: list[WardenError] = []
    for change in planned:
        if isinstance(change, GrantAccess):
            with suppress(HostError):  # it was replaced meanwhile, which the start will see
                obstacle = change.obstacle()
                found += [obstacle] if obstacle else []
    return found


def _of_emulator(domain: Domain, rules: Rules, paths: Paths) -> list[WardenError]:
    """Enrolment replaces an admin's own emulator, which may have machines that QEMU lacks."""
    plain, name = ticket.emulator_path(domain.arch), shown(domain.name)
    is_known = domain.emulator in ("", plain, _KVM) or adopting.uses_wrapper(domain, paths)
    if is_known or "emulator" in rules.exceptions:
        return []
    return [
        Refusal(
            f"its emulator is {domain.emulator}, and enrolled it would start {plain}",
            where=rules.where("exceptions"),
            fix=f"if it runs with that: virsh edit {name}: <emulator>{plain}</emulator>",
        )
    ]


def _of_password(untrusted_xml: bytes, rules: Rules) -> list[WardenError]:
    try:
        weak = passwords.objection(untrusted_xml, rules)
    except WardenError as error:
        return [error]
    return [] if weak is None else [weak]


@dataclass(frozen=True)
class _FactsBeforeStart(HostFacts):
    """This host without what a start undoes first: the group of a user that was only begun."""

    domain: str

    def group_id(self, name: str) -> int | None:
        found = super().group_id(name)
        return None if found is not None and self._is_undone(name, found) else found

    def _is_undone(self, name: str, gid: int) -> bool:
        with suppress(JournalError):  # then the start undoes nothing
            return any(
                isinstance(record.change, CreateUser)
                and (record.change.name, record.before["uid"]) == (name, gid)
                for record in lifecycle.half_made(self.paths, self.domain)
            )
        return False

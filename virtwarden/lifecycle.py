# SPDX-License-Identifier: GPL-2.0-or-later
"""Which guards act at which step of a domain's life, and in which order.

docs/architecture.md has the same list; a test compares the two. The caller of each function must
hold the lock on the domain's journal (journal.locked).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

from virtwarden import gate, log
from virtwarden.changes import (
    Change,
    Checkable,
    CreateUser,
    Scope,
    TakeDirectory,
    WriteFile,
    arrivals,
    journal,
    starts,
)
from virtwarden.domain import writing
from virtwarden.domain.model import Domain
from virtwarden.errors import Refusal, WardenError
from virtwarden.guards import (
    boot,
    console,
    encryption,
    host,
    identity,
    luks,
    mac,
    network,
    reach,
    sandbox,
    storage,
    zones,
)
from virtwarden.guards.base import Case, Guard, Op
from virtwarden.paths import Paths
from virtwarden.policy import Mode
from virtwarden.system import process, taps, users
from virtwarden.words import printable, shown

# identity is first: it makes the user that the others give files to. luks opens disks before
# storage reviews the others. zones puts a tap in its place before network admits it. sandbox is
# last: its ticket contains what the others did.
GUARDS: tuple[Guard, ...] = (
    identity,
    luks,
    encryption,
    storage,
    boot,
    zones,
    network,
    reach,
    console,
    host,
    mac,
    sandbox,
)

# What an enrolled domain needs to start and to use its taps, even if nothing is to be guarded.
_INDISPENSABLE: tuple[Guard, ...] = (identity, luks, boot, network, sandbox)

# Without these, nothing starts: the wrapper needs its ticket, QEMU needs the certificates that the
# ticket names and the kernel that the XML names, and the gate must admit the taps. So they act in
# permissive mode despite refusals.
_UNDETERRED: tuple[Guard, ...] = (boot, network, console, sandbox)

# The guards that review a NIC when it is attached.
_OF_NICS: tuple[Guard, ...] = (zones, network)


def prepare(case: Case, dismiss: Callable[[], None] = lambda: None) -> None:
    """Undo what the last run left, then raise the guards; no part of the domain exists yet.

    Raises WardenError if the domain may not start; then all changes are undone. `dismiss` is called
    when libvirt need not wait any more; what `start` will need is prepared after that.
    """
    _undo_former_life(case)
    _raise_guards(case)
    dismiss()
    if case.rules.mode is Mode.ENFORCING:
        _do_ahead(case)


def _do_ahead(case: Case) -> None:
    """Prepare what `start` needs. A failure does not matter: `start` tries again and reports it."""
    with suppress(Exception):
        ahead = plan(replace(case, op=Op.AHEAD), GUARDS)
        journal.perform(case.paths, case.domain.uuid, ahead)


def start(case: Case) -> None:
    """Raise the guards that need the tap or the VNC port; QEMU does not run yet.

    Raises as `prepare` does. No tap of the domain outlives that, whoever has it open.
    """
    try:
        _raise_guards(case)
        if case.adopted:
            _have_adopted(case)
    except BaseException:
        _remove_taps(case)
        raise


def _have_adopted(case: Case) -> None:
    """Write down what is due once libvirt has given the files away, and let the wrapper ask for it.

    virt-warden.service makes these changes then (service/adopter.py).
    """
    is_strict = case.rules.mode is Mode.ENFORCING
    if not is_strict and identity.review(case):
        starts.announce(case.paths, case.domain.uuid, starts.AS_IT_IS)
        return
    due = {
        "name": case.domain.name,
        "user": case.user,
        "number": case.domain.id,
        "changes": journal.entries(plan(replace(case, op=Op.ADOPT), GUARDS)),
    }
    plan_file = str(case.paths.adoption_plan(case.domain.uuid))
    journal.perform(case.paths, case.domain.uuid, [WriteFile(plan_file, json.dumps(due), user="")])
    said = starts.OWN_USER if is_strict else starts.OWN_USER_IF_IT_CAN
    starts.announce(case.paths, case.domain.uuid, said)


def _remove_taps(case: Case) -> None:
    for name in {nic.tap for nic in case.domain.nics if not nic.is_kept} - {""}:
        tap = taps.find(name)
        if tap is not None and gate.owner_of(case.paths, name) in ("", case.domain.uuid):
            taps.remove(tap)


def started(case: Case, dismiss: Callable[[], None] = lambda: None) -> None:
    """QEMU runs: take back files that libvirt gave to the user, then check every promise.

    The result of the check is for the log, so `dismiss` is called before it.
    """
    breaches = _take_back(case)
    dismiss()
    breaches += verify(case)
    _report(case, breaches)


def _take_back(case: Case) -> list[str]:
    """Take files back. The domain runs already, so a failure is logged and the checks go on."""
    breaches = []
    # In enforcing mode a refused domain does not run: no need to review it again.
    enforcing = case.rules.mode is Mode.ENFORCING
    for guard in GUARDS if enforcing else willing(case, lenient_reviews(case)):
        try:
            journal.perform(case.paths, case.domain.uuid, plan(case, [guard]))
        except (WardenError, OSError) as error:
            breaches.append(f"{guard.NAME}: {error}")
    return breaches


def reconnect(case: Case) -> None:
    """libvirtd is back and found the domain running: check every promise again.

    libvirt has given its directories to its own user again, so take these back first.
    """
    breaches = _take_back(case)
    _report(case, breaches + verify(case))


def review_port(case: Case) -> None:
    """Review a NIC, the only one in this case, that joins a libvirt network. Raises Refusal."""
    if case.rules.mode is Mode.ENFORCING:
        _refuse(case, [refusal for guard in _OF_NICS for refusal in guard.review(case)])


def admit_attached(case: Case) -> list[str]:
    """Filter and admit a NIC that was attached to the running domain; libvirt calls no hook then.

    Filters all of the domain's NICs by the current policy and admits the taps that the gate shut
    out. Gives their names. Raises Refusal if the policy forbids any of them; these stay shut out.
    """
    case = replace(case, op=Op.START)
    taps = [nic.tap for nic in case.domain.nics if nic.tap]
    waiting = [tap.name for tap in gate.shut_out(case.paths, taps)]
    # If QEMU has ended, no later step may come to undo what is done here.
    if not waiting or not _runs(case):
        return []
    refusals = [refusal for guard in _OF_NICS for refusal in guard.review(case)]
    if case.rules.mode is Mode.ENFORCING:
        _refuse(case, refusals)
    _log_refusals(case, refusals)
    journal.perform(case.paths, case.domain.uuid, plan(case, _willing_of_nics(case, refusals)))
    _log(case, log.Level.NOTICE, "let-in", taps=",".join(waiting))
    return waiting


def take_back_attached(case: Case) -> None:
    """Take back the directory that libvirt gave to the domain's user for an attached device.

    Before `started` QEMU itself still needs these directories.
    """
    if case.rules.mode is not Mode.DISABLED and _has_started(case):
        changes = plan(replace(case, op=Op.STARTED), [identity])
        journal.perform(case.paths, case.domain.uuid, changes)


def _has_started(case: Case) -> bool:
    """Whether `started` has come: it is the first to take the directories of this run."""
    records = journal.records(case.paths, case.domain.uuid)
    taken = {r.change.path for r in records if isinstance(r.change, TakeDirectory)}
    return any(each.path in taken for each in case.facts.directories_of(case.domain.id))


def settle(case: Case) -> None:
    """The domain has arrived by a migration: its QEMU no longer answers at the ports for that."""
    arrivals.forget(case.paths, case.domain.uuid)
    # Where nothing was limited at the start, nothing is limited while it runs.
    if _runs(case) and case.facts.limit_of(case.domain.uuid) is not None:
        changes = plan(replace(case, op=Op.START), [reach])
        journal.perform(case.paths, case.domain.uuid, changes)


def _runs(case: Case) -> bool:
    try:
        process.read(pid(case))
    except (WardenError, OSError, ValueError):
        return False
    return True


def _willing_of_nics(case: Case, refusals: list[Refusal]) -> tuple[Guard, ...]:
    all_of_them = case.rules.mode is Mode.ENFORCING or not refusals
    return _OF_NICS if all_of_them and case.rules.mode is not Mode.DISABLED else (network,)


def remember_attached(paths: Paths, domain: Domain) -> None:
    """Remember the images that the domain got since its start, and that its user could write.

    Such as an overlay of a snapshot, or a disk that was attached. A start that was refused gave it
    nothing.
    """
    try:
        if journal.records(paths, domain.uuid):
            writing.remember(paths, domain)
    except (WardenError, OSError) as error:
        log.event(log.Level.ERROR, "failed", domain=domain.name, op="release", reason=error)


def report_headers(domain: Domain) -> None:
    """Log which images of a stopped domain name a base that its XML does not have."""
    for sentence in writing.misleading(domain):
        log.event(
            log.Level.WARNING,
            "header-differs",
            domain=domain.name,
            uuid=domain.uuid,
            reason=printable(sentence),
        )


def release(paths: Paths, domain: str, name: str) -> None:
    """The domain is gone: undo all its changes. Harmless if there are none left."""
    _undo(paths, domain, name)


def reviews(case: Case) -> dict[Guard, list[Refusal]]:
    """The refusals of each guard for this domain."""
    return {guard: guard.review(case) for guard in GUARDS}


def lenient_reviews(case: Case) -> dict[Guard, list[Refusal]]:
    """The same, where a guard that cannot look counts as one that refuses."""
    return {guard: _lenient_review(guard, case) for guard in GUARDS}


def _lenient_review(guard: Guard, case: Case) -> list[Refusal]:
    try:
        return guard.review(case)
    except WardenError as error:
        return [Refusal(error.what, where=error.where, fix=error.fix)]
    except Exception as error:  # noqa: BLE001 - the other guards, and a permissive start, go on
        return [Refusal(f"the guard {guard.NAME} cannot look at it: {error!r}")]


def plan(case: Case, guards: Iterable[Guard]) -> list[Change]:
    """The changes that these guards plan at this step, each change once."""
    return list(dict.fromkeys(change for guard in guards for change in guard.plan(case)))


def willing(case: Case, refusals: Mapping[Guard, list[Refusal]]) -> list[Guard]:
    """The guards that act: all of them or, in permissive mode, those without a refusal.

    In enforcing mode a domain with a refusal never gets this far.
    """
    if case.rules.mode is Mode.ENFORCING:
        return [*GUARDS]
    asked = _INDISPENSABLE if case.rules.mode is Mode.DISABLED else GUARDS
    if refusals[identity]:
        # Without its own user there is no one to give files to; its taps still need the gate.
        asked = tuple(guard for guard in asked if guard in _OF_NICS)
    return [guard for guard in asked if guard in _UNDETERRED or not refusals[guard]]


def verify(case: Case) -> list[str]:
    """The running domain's breaches, a sentence each, which begins with the guard's name."""
    case = replace(case, op=Op.STARTED)
    try:
        running = process.read(pid(case))
    except (WardenError, OSError, ValueError) as error:
        return [f"{sandbox.NAME}: QEMU's process cannot be looked at: {error}"]
    promised = _promised(case)
    return [
        f"{guard.NAME}: {printable(breach)}"  # it may quote an escaped guest
        for guard in GUARDS
        if guard in promised
        for breach in _breaches(guard, case, running)
    ]


def _breaches(guard: Guard, case: Case, running: process.Process) -> list[str]:
    """What one guard finds. If it cannot check, the other guards still do."""
    try:
        return guard.verify(case, running)
    except (WardenError, OSError) as error:
        return [f"its promises cannot be checked: {error}"]


def pid(case: Case) -> int:
    """The pid of the domain's QEMU, from libvirt. Raises OSError or ValueError if there is none."""
    return int(case.paths.qemu_pid(case.domain.name).read_text())


def _promised(case: Case) -> tuple[Guard, ...]:
    return () if case.rules.mode is Mode.DISABLED else GUARDS


def _undo_former_life(case: Case) -> None:
    try:
        _undo(case.paths, case.domain.uuid, case.domain.name)
        _undo_half_made_user(case)
    except (WardenError, OSError) as error:
        if case.rules.mode is Mode.ENFORCING:
            raise
        # The earlier records stay; new ones follow them and are undone before them.
        _log(case, log.Level.WARNING, "would-refuse", reason=error)


def _raise_guards(case: Case) -> None:
    if case.rules.mode is Mode.ENFORCING:
        refusals = reviews(case)
        _refuse(case, [refusal for found in refusals.values() for refusal in found])
        _remember_writable(case)
        _perform(case, GUARDS)
    else:
        with suppress(Exception):  # such as a full disk, which must not keep it from its start
            _remember_writable(case)
        _perform_leniently(case, lenient_reviews(case))


def _remember_writable(case: Case) -> None:
    """Remember, before the domain's user gets its images, what they were based on till then."""
    if case.op is Op.PREPARE:
        writing.remember(case.paths, case.domain)


def _refuse(case: Case, refusals: list[Refusal]) -> None:
    if not refusals:
        return
    first, *more = refusals
    if more:
        hint = f"{first.fix} ({_others(case, more)})"
        raise Refusal(first.what, where=first.where, fix=hint)
    raise first


def _others(case: Case, refusals: list[Refusal]) -> str:
    if case.facts.is_defined(case.domain.name):
        return f"and {len(refusals)} more: virt-warden explain {shown(case.domain.name)}"
    return f"and also: {'; '.join(refusal.what for refusal in refusals)}"


def _perform(case: Case, guards: Iterable[Guard]) -> None:
    """Make all changes, or none: after a failure, undo those that were made."""
    try:
        journal.perform(case.paths, case.domain.uuid, _left_to_do(case, plan(case, guards)))
    except BaseException:
        try:
            _undo(case.paths, case.domain.uuid, case.domain.name)
            _undo_half_made_user(case)
        except WardenError as error:  # what failed first is what the admin must hear
            _log(case, log.Level.CRITICAL, "left-behind", reason=error)
        raise


def _left_to_do(case: Case, changes: list[Change]) -> list[Change]:
    """The changes that were not made ahead."""
    if case.op is not Op.START:
        return changes
    done = {record.change for record in journal.records(case.paths, case.domain.uuid)}
    return [change for change in changes if change not in done or not _is_whole(change)]


def _is_whole(change: Change) -> bool:
    return isinstance(change, Checkable) and change.is_whole


def _perform_leniently(case: Case, refusals: dict[Guard, list[Refusal]]) -> None:
    """Make each change that works; log what enforcing mode would have refused."""
    _log_refusals(case, (refusal for found in refusals.values() for refusal in found))
    for guard in willing(case, refusals):
        try:
            journal.perform(case.paths, case.domain.uuid, plan(case, [guard]))
        except Exception as error:  # noqa: BLE001 - the other guards, and the start, go on
            reason = error if isinstance(error, WardenError | OSError) else repr(error)
            _log(case, log.Level.WARNING, "would-refuse", reason=reason)


def _log_refusals(case: Case, refusals: Iterable[Refusal]) -> None:
    if case.rules.mode is Mode.PERMISSIVE:
        for refusal in refusals:
            _log(case, log.Level.WARNING, "would-refuse", reason=refusal)


def _undo(paths: Paths, domain: str, name: str) -> None:
    done = len(journal.records(paths, domain))
    for report in journal.undo(paths, domain, Scope.RUN):
        log.event(log.Level.WARNING, "left-alone", domain=name, uuid=domain, reason=report)
    if done:
        log.event(log.Level.NOTICE, "undone", domain=name, uuid=domain, changes=done)


def _undo_half_made_user(case: Case) -> None:
    if case.account is None and half_made(case.paths, case.domain.uuid):
        journal.undo(case.paths, case.domain.uuid, Scope.ENROLMENT)


def half_made(paths: Paths, domain: str) -> list[journal.Record]:
    """The records of a domain's user that was only half made, which a start undoes first.

    Empty if the user is complete. Raises JournalError.
    """
    if users.account_of(domain) is not None:
        return []
    records = journal.records(paths, domain, Scope.ENROLMENT)
    begun = [record.change.name for record in records if isinstance(record.change, CreateUser)]
    # A user that somebody changed still counts as a user.
    return [] if any(map(users.account, begun)) else records


def _report(case: Case, breaches: list[str]) -> None:
    enforcing = case.rules.mode is Mode.ENFORCING
    for breach in breaches:
        level = log.Level.CRITICAL if enforcing else log.Level.WARNING
        _log(case, level, "breach", promise=breach)
    if not breaches:
        guards = ",".join(guard.NAME for guard in _promised(case))
        account = case.account
        _log(
            case,
            log.Level.NOTICE,
            "verified",
            user=case.user,
            uid=account.uid if account else "",
            pid=pid(case),
            guards=guards,
        )


def _log(case: Case, level: log.Level, what: str, **fields: object) -> None:
    log.event(level, what, domain=case.domain.name, uuid=case.domain.uuid, **fields)

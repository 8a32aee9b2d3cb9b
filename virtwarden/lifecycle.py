"""A domain's life under guard: which guards are asked at which step, and in which order.

This is the list that docs/architecture.md tells; a test holds the two together. Whoever takes a
step holds the domain's journal (journal.locked).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

from virtwarden import gate, log
from virtwarden.changes import Change, Checkable, CreateUser, Scope, journal
from virtwarden.errors import Refusal, WardenError
from virtwarden.guards import (
    console,
    encryption,
    host,
    identity,
    luks,
    mac,
    network,
    sandbox,
    storage,
    zones,
)
from virtwarden.guards.base import Case, Guard, Op
from virtwarden.paths import Paths
from virtwarden.policy import Mode
from virtwarden.system import process, users
from virtwarden.words import shown

# identity comes first: it makes the user to whom the others give things. luks opens disks before
# storage looks at the others. zones comes before network, which lets a tap in once it is where it
# belongs. sandbox comes last: its ticket tells what the others did.
GUARDS: tuple[Guard, ...] = (
    identity,
    luks,
    encryption,
    storage,
    zones,
    network,
    console,
    host,
    mac,
    sandbox,
)

# What is needed for an enrolled domain to start at all, and to be heard beyond its taps, whether or
# not anything is to be guarded.
_INDISPENSABLE: tuple[Guard, ...] = (identity, luks, network, sandbox)

# The wrapper will not become QEMU without its ticket, and QEMU not without the certificates that
# the ticket names, and the gate lets no tap in by itself, whatever these guards would refuse.
_UNDETERRED: tuple[Guard, ...] = (network, console, sandbox)

# Those who are asked again when a NIC is attached.
_OF_NICS: tuple[Guard, ...] = (zones, network)


def prepare(case: Case, dismiss: Callable[[], None] = lambda: None) -> None:
    """Before anything of the domain exists: undo what a former life left, then raise the guards.

    Raises WardenError where the domain may not start; nothing of what was done is left then.
    `dismiss` is called when nobody has to wait any more: what `start` will need comes then.
    """
    _undo_former_life(case)
    _raise_guards(case)
    dismiss()
    if case.rules.mode is Mode.ENFORCING:
        _do_ahead(case)


def _do_ahead(case: Case) -> None:
    """Where it fails, whatever it is, `start` does it, and says why it cannot."""
    with suppress(Exception):
        ahead = plan(replace(case, op=Op.AHEAD), GUARDS)
        journal.perform(case.paths, case.domain.uuid, ahead)


def start(case: Case) -> None:
    """Tap and VNC port are known, QEMU does not run yet. Raises as `prepare` does."""
    _raise_guards(case)


def started(case: Case, dismiss: Callable[[], None] = lambda: None) -> None:
    """QEMU runs: take back what libvirt gave away on the way, then check every promise.

    What the check finds is for the log: `dismiss` is called when nobody has to wait any more.
    """
    breaches = _take_back(case)
    dismiss()
    breaches += verify(case)
    _report(case, breaches)


def _take_back(case: Case) -> list[str]:
    """Whatever fails here, the domain runs: it is told, and all else is checked all the same."""
    breaches = []
    # What is refused under enforcing does not run: nobody has to be asked again.
    enforcing = case.rules.mode is Mode.ENFORCING
    for guard in GUARDS if enforcing else willing(case, reviews(case)):
        try:
            journal.perform(case.paths, case.domain.uuid, plan(case, [guard]))
        except (WardenError, OSError) as error:
            breaches.append(f"{guard.NAME}: {error}")
    return breaches


def reconnect(case: Case) -> None:
    """libvirt is back and finds the domain running: check every promise anew."""
    _report(case, verify(case))


def review_port(case: Case) -> None:
    """Before the one NIC of this case gets its port of a libvirt network. Raises Refusal."""
    if case.rules.mode is Mode.ENFORCING:
        _refuse(case, [refusal for guard in _OF_NICS for refusal in guard.review(case)])


def admit_attached(case: Case) -> list[str]:
    """A NIC was attached to the running domain, of which libvirt told no hook: admit its tap.

    All of the domain's NICs are filtered by the policy as it is now, and those taps that the gate
    had shut out are admitted; gives their names. Raises Refusal where the policy has something
    against any of them: then those stay shut out.
    """
    case = replace(case, op=Op.START)
    taps = [nic.tap for nic in case.domain.nics if nic.tap]
    waiting = [tap.name for tap in gate.shut_out(case.paths, taps)]
    # Once QEMU is gone, nobody might come to undo what is done for it.
    if not waiting or not _runs(case):
        return []
    refusals = [refusal for guard in _OF_NICS for refusal in guard.review(case)]
    if case.rules.mode is Mode.ENFORCING:
        _refuse(case, refusals)
    _log_refusals(case, refusals)
    journal.perform(case.paths, case.domain.uuid, plan(case, _willing_of_nics(case, refusals)))
    _log(case, log.Level.NOTICE, "let-in", taps=",".join(waiting))
    return waiting


def _runs(case: Case) -> bool:
    try:
        process.read(pid(case))
    except (WardenError, OSError, ValueError):
        return False
    return True


def _willing_of_nics(case: Case, refusals: list[Refusal]) -> tuple[Guard, ...]:
    all_of_them = case.rules.mode is Mode.ENFORCING or not refusals
    return _OF_NICS if all_of_them and case.rules.mode is not Mode.DISABLED else (network,)


def release(paths: Paths, domain: str, name: str) -> None:
    """The domain is gone: undo all. Harmless where nothing was done or all is undone."""
    _undo(paths, domain, name)


def reviews(case: Case) -> dict[Guard, list[Refusal]]:
    """What each guard has against this domain."""
    return {guard: guard.review(case) for guard in GUARDS}


def plan(case: Case, guards: Iterable[Guard]) -> list[Change]:
    """What these guards will do at this step, each thing once."""
    return list(dict.fromkeys(change for guard in guards for change in guard.plan(case)))


def willing(case: Case, refusals: Mapping[Guard, list[Refusal]]) -> list[Guard]:
    """The guards that do their work: all of them, or those that can, whatever others refuse.

    Where the mode is enforcing, a domain with any refusal does not come as far as this.
    """
    if case.rules.mode is Mode.ENFORCING:
        return [*GUARDS]
    asked = _INDISPENSABLE if case.rules.mode is Mode.DISABLED else GUARDS
    if refusals[identity]:
        # With no user of its own, there is nobody to give anything to; its taps are there.
        asked = tuple(guard for guard in asked if guard in _OF_NICS)
    return [guard for guard in asked if guard in _UNDETERRED or not refusals[guard]]


def verify(case: Case) -> list[str]:
    """Which promises the running domain breaks, a sentence each, its guard first."""
    case = replace(case, op=Op.STARTED)
    try:
        running = process.read(pid(case))
    except (WardenError, OSError, ValueError) as error:
        return [f"{sandbox.NAME}: QEMU's process cannot be looked at: {error}"]
    promised = _promised(case)
    return [
        f"{guard.NAME}: {breach}"
        for guard in GUARDS
        if guard in promised
        for breach in guard.verify(case, running)
    ]


def pid(case: Case) -> int:
    """Its QEMU's, as libvirt has it. Raises OSError and ValueError where there is none."""
    return int((case.paths.libvirt_run / f"{case.domain.name}.pid").read_text())


def _promised(case: Case) -> tuple[Guard, ...]:
    return () if case.rules.mode is Mode.DISABLED else GUARDS


def _undo_former_life(case: Case) -> None:
    try:
        _undo(case.paths, case.domain.uuid, case.domain.name)
        _undo_half_made_user(case)
    except WardenError as error:
        if case.rules.mode is Mode.ENFORCING:
            raise
        # Its records stay; what is done now is written down after them, and undone before them.
        _log(case, log.Level.WARNING, "would-refuse", reason=error)


def _raise_guards(case: Case) -> None:
    refusals = reviews(case)
    if case.rules.mode is Mode.ENFORCING:
        _refuse(case, [refusal for found in refusals.values() for refusal in found])
        _perform(case, GUARDS)
    else:
        _perform_leniently(case, refusals)


def _refuse(case: Case, refusals: list[Refusal]) -> None:
    if not refusals:
        return
    first, *more = refusals
    if more:
        hint = f"{first.fix} (and {len(more)} more: virt-warden explain {shown(case.domain.name)})"
        raise Refusal(first.what, where=first.where, fix=hint)
    raise first


def _perform(case: Case, guards: Iterable[Guard]) -> None:
    """All or nothing."""
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
    """Those that were not done ahead, to their end."""
    if case.op is not Op.START:
        return changes
    done = {record.change for record in journal.records(case.paths, case.domain.uuid)}
    return [change for change in changes if change not in done or not _is_whole(change)]


def _is_whole(change: Change) -> bool:
    return isinstance(change, Checkable) and change.is_whole


def _perform_leniently(case: Case, refusals: dict[Guard, list[Refusal]]) -> None:
    """As much as can be; what would have been refused is logged."""
    _log_refusals(case, (refusal for found in refusals.values() for refusal in found))
    for guard in willing(case, refusals):
        try:
            journal.perform(case.paths, case.domain.uuid, plan(case, [guard]))
        except (WardenError, OSError) as error:
            _log(case, log.Level.WARNING, "would-refuse", reason=error)


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
    """What was done for a domain's user whose making was cut off: a start undoes that first.

    Empty where the user is whole. Raises JournalError.
    """
    if users.account_of(domain) is not None:
        return []
    records = journal.records(paths, domain, Scope.ENROLMENT)
    begun = [record.change.name for record in records if isinstance(record.change, CreateUser)]
    # One that somebody altered is still a user.
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

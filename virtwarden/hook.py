# SPDX-License-Identifier: GPL-2.0-or-later
"""Answers libvirt's hook calls, one at each step of a domain's life; https://libvirt.org/hooks.html.

libvirt also calls it for its networks: `port-created` is a step of a network.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, TextIO

from virtwarden import log
from virtwarden.errors import FIX, DomainError, HostError, PolicyError, Refusal, WardenError
from virtwarden.paths import Paths
from virtwarden.policy import Mode, Policy, Rules, last_good, load
from virtwarden.words import printable, shown

if TYPE_CHECKING:
    from virtwarden.domain.model import Domain
    from virtwarden.guards.base import Case, Op

_PORT_CREATED = "port-created"
# At these steps a refusal prevents the start; at later ones it is too late.
_REFUSABLE = ("migrate", "restore", "prepare", "start")
_AFTERWARDS = ("started", "reconnect")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True)
class _Call:
    """One call, and whether libvirt still waits for its answer."""

    name: str
    op: str
    stdin: BinaryIO
    stdout: BinaryIO
    paths: Paths
    is_wanted: Callable[[], bool]
    dismiss: Callable[[], None]


def main(
    arguments: list[str],
    stdin: BinaryIO,
    stdout: BinaryIO,
    stderr: TextIO,
    paths: Paths | None = None,
    is_wanted: Callable[[], bool] = lambda: True,
    dismiss: Callable[[], None] = lambda: None,
) -> int:
    """Answer libvirt's call `NAME OP SUBOP EXTRA`, with the domain's XML on stdin.

    Gives the exit code. It is 1 only to refuse a start; then stderr has one line, which `virsh
    start` shows. Unknown steps give 0.

    `is_wanted` is called when the domain's journal is locked, before any change. If the process
    that libvirt called has died, libvirt may already have continued with the domain: then this
    function changes nothing. `dismiss` is called, with the journal still locked, once the exit code
    can only be 0 and the remaining work is only for the log or the next step. The caller may then
    let libvirt continue.
    """
    name, op = (*arguments, "", "")[:2]
    call = _Call(name, op, stdin, stdout, paths or Paths(), is_wanted, dismiss)
    try:
        if op == "release":
            _release(call)
        elif op == _PORT_CREATED:
            _review_port(call)
        elif op in _REFUSABLE + _AFTERWARDS:
            _guard(call)
    except WardenError as error:
        return _fail(call, str(error), stderr)
    except Exception as error:  # noqa: BLE001 - a bug of ours must end in a line, not in a trace
        return _fail(call, _unexpected(error), stderr)
    return 0


def _may_fail(call: _Call) -> bool:
    """Whether a failure at this step only refuses the start.

    If a hook fails while libvirt 11.3 starts a domain from its managed save, `virsh start` reports
    success and deletes the guest's memory. A refusal at `prepare`, the next step, keeps it.
    """
    deletes_memory = call.op == "restore" and call.paths.managed_save(call.name).exists()
    return call.op in (*_REFUSABLE, _PORT_CREATED) and not deletes_memory


def _unexpected(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in _FULL:
        return f"the host's disk is full or read-only: {error}{FIX}df -h /run /var; findmnt /var"
    fix = "report this; meanwhile: virt-warden unenrol, and managed = [] in the policy"
    return f"internal error: {error!r}{FIX}{fix}"


def _release(call: _Call) -> None:
    """Undo the domain's changes. Needs no policy, which may have changed since the start."""
    from virtwarden import gate
    from virtwarden.changes import arrivals, journal, starts
    from virtwarden.domain.model import read
    from virtwarden.system.taps import Tap

    domain = read(_untrusted_xml(call))
    arrivals.forget(call.paths, domain.uuid)
    starts.forget(call.paths, domain.uuid)
    if not call.paths.domain_state(domain.uuid).exists():
        # An index would be safer than a name, but libvirt has already removed the taps.
        gate.dismiss(call.paths, [Tap(nic.tap, index=0) for nic in domain.nics if nic.tap])
        return
    from virtwarden import lifecycle

    with journal.locked(call.paths, domain.uuid):
        if call.is_wanted():
            lifecycle.remember_attached(call.paths, domain)
            lifecycle.release(call.paths, domain.uuid, domain.name)
            lifecycle.report_headers(domain)


def _guard(call: _Call) -> None:
    policy = _policy(call.paths, call.name)
    if not policy.manages(call.name):
        _let_pass(call)
        return
    rules = policy.rules_for(call.name)
    try:
        _guard_by(call, rules)
    except Exception as error:
        if rules.mode is not Mode.PERMISSIVE or call.op not in _REFUSABLE:
            raise
        reason = str(error) if isinstance(error, WardenError) else _unexpected(error)
        log.event(log.Level.WARNING, "would-refuse", domain=call.name, op=call.op, reason=reason)


def _guard_by(call: _Call, rules: Rules) -> None:
    if call.op in ("migrate", "restore"):
        if call.op == "restore" and _may_fail(call):
            _refuse_saved_memory(call.name, rules)
        _enrol_in_passing(call, rules)
    else:
        _take_step(call, rules)


def _let_pass(call: _Call) -> None:
    """Do not guard an unmanaged domain, but admit its taps: the gate would shut them out."""
    from virtwarden import gate

    if call.op not in (*_AFTERWARDS, "start"):
        return
    untrusted_xml = _untrusted_xml(call)
    if call.op == "start" and bytes(call.paths.wrapper_dir) in untrusted_xml:
        _start_as_it_is(call, untrusted_xml)
    if gate.is_up(call.paths):
        from virtwarden.domain.model import read

        nics = read(untrusted_xml).nics
        if call.op == "start":
            _refuse_guarded_taps(call.paths, [nic.tap for nic in nics if nic.tap])
        try:
            gate.admit(call.paths, {nic.tap: nic.queue_count for nic in nics if nic.tap})
        except HostError as error:
            log.event(log.Level.ERROR, "shut-out", domain=call.name, reason=error)


def _start_as_it_is(call: _Call, untrusted_xml: bytes) -> None:
    """Have a wrapper that libvirt found on its PATH become QEMU, and nothing else."""
    from virtwarden.changes import starts
    from virtwarden.domain.model import read
    from virtwarden.enrolment import adopting

    domain = read(untrusted_xml)
    if adopting.is_due(domain, call.paths):
        starts.announce(call.paths, domain.uuid, starts.AS_IT_IS)


def _refuse_guarded_taps(paths: Paths, names: list[str]) -> None:
    """Refuse the only thing that is refused to an unmanaged domain: a guarded domain's tap."""
    from virtwarden import gate

    for name in names:
        if owner := gate.owner_of(paths, name):
            raise HostError(
                f"its tap {name} is that of a guarded domain, {owner}",
                fix="give its NIC another <target dev=…>, or none: virsh edit",
            )


def _review_port(call: _Call) -> None:
    """Review a NIC that joins a libvirt network, at a start or when it is attached."""
    from virtwarden import lifecycle
    from virtwarden.domain import networkport
    from virtwarden.guards.base import Case, Op
    from virtwarden.guards.facts import HostFacts

    port = networkport.read(_untrusted_xml(call))
    policy = _policy(call.paths, port.owner)
    if policy.manages(port.owner):
        rules = policy.rules_for(port.owner)
        # libvirt does not say which of the domain's NICs this is: only its MAC address can match.
        rules = replace(rules, nics={name: n for name, n in rules.nics.items() if ":" in name})
        facts = HostFacts(call.paths)
        try:
            lifecycle.review_port(Case(Op.PREPARE, port.domain, rules, facts, call.paths))
        except Refusal as refusal:
            where = f"domain {port.owner}, {refusal.where}"
            raise Refusal(refusal.what, where=where, fix=refusal.fix) from None


def _policy(paths: Paths, name: str) -> Policy:
    """The policy; if it is broken, the last good one, unless that one enforces for this domain."""
    try:
        return load(paths, store=True)
    except PolicyError as error:
        former = last_good(paths)
        if former is None:
            raise
        if former.manages(name) and former.rules_for(name).mode is Mode.ENFORCING:
            raise
        log.event(log.Level.WARNING, "broken-policy", domain=name, reason=error)
        return former


def _take_step(call: _Call, rules: Rules) -> None:
    # Imported here, so that an unmanaged domain does not pay for it.
    from virtwarden import lifecycle
    from virtwarden.changes import journal
    from virtwarden.guards.base import Op

    steps: Mapping[str, tuple[Op, Callable[[Case], None]]] = {
        "prepare": (Op.PREPARE, partial(lifecycle.prepare, dismiss=call.dismiss)),
        "start": (Op.START, lifecycle.start),
        "started": (Op.STARTED, partial(lifecycle.started, dismiss=call.dismiss)),
        "reconnect": (Op.STARTED, lifecycle.reconnect),
    }
    step, act = steps[call.op]
    case = _case(call, rules, step)
    with journal.locked(call.paths, case.domain.uuid):
        if call.is_wanted():
            act(case)


def _case(call: _Call, rules: Rules, step: Op) -> Case:
    """The domain at this step."""
    from virtwarden.domain.model import read
    from virtwarden.enrolment import adopting
    from virtwarden.guards.base import Case, Op
    from virtwarden.guards.facts import HostFacts

    untrusted_xml = _untrusted_xml(call)
    written = read(untrusted_xml)
    if step is Op.PREPARE:
        _choose_whether_to_adopt(call, rules, untrusted_xml, written)
    try:
        domain, adopted = adopting.as_started(
            untrusted_xml, written, rules, call.paths, runs=step is Op.STARTED
        )
    except WardenError as error:
        if rules.mode is Mode.ENFORCING:
            raise
        log.event(log.Level.WARNING, "would-refuse", domain=call.name, reason=error)
        _start_as_it_is(call, untrusted_xml)
        domain, adopted = written, False
    closed = adopting.closed_displays(written, domain) if adopted else ()
    return Case(step, domain, rules, HostFacts(call.paths), call.paths, adopted, closed)


def _choose_whether_to_adopt(
    call: _Call, rules: Rules, untrusted_xml: bytes, domain: Domain
) -> None:
    """Leave a start that nobody enrolled as libvirt makes it, where its own user may fail at it."""
    from virtwarden.changes import starts

    starts.forget(call.paths, domain.uuid)
    if rules.mode is Mode.DISABLED or _may_lack_access(call, rules, untrusted_xml, domain):
        _start_as_it_is(call, untrusted_xml)


def _may_lack_access(call: _Call, rules: Rules, untrusted_xml: bytes, domain: Domain) -> bool:
    from virtwarden.enrolment import adopting

    if rules.mode is Mode.ENFORCING or not adopting.is_due(domain, call.paths):
        return False
    from virtwarden.nextstart import foresee

    return foresee(call.paths, rules, untrusted_xml).may_lack_access


def _refuse_saved_memory(name: str, rules: Rules) -> None:
    """Refuse saved memory at `virsh restore FILE`: no later step knows of the file."""
    from virtwarden.guards.encryption import saved_in_the_clear

    refusal = saved_in_the_clear(rules, f"virsh start {shown(name)}")
    if refusal is None or rules.mode is Mode.DISABLED:
        return
    if rules.mode is Mode.ENFORCING:
        raise refusal
    log.event(log.Level.WARNING, "would-refuse", domain=name, reason=refusal)


def _enrol_in_passing(call: _Call, rules: Rules) -> None:
    """Answer with the enrolled XML of a saved or migrated domain, whose own may be older.

    libvirt reads XML from the hook's stdout only at these two steps. A permissive domain keeps the
    user that it was saved with where its own might not be able to open all that it needs.
    """
    from virtwarden.changes import arrivals
    from virtwarden.domain.model import read
    from virtwarden.enrolment.enrol import enrol_xml

    untrusted_xml = _untrusted_xml(call)
    if call.op == "migrate":
        arrivals.note(call.paths, read(untrusted_xml).uuid)
    if rules.mode is Mode.PERMISSIVE:
        from virtwarden.nextstart import foresee

        if foresee(call.paths, rules, untrusted_xml).may_lack_access:
            return
    call.stdout.write(enrol_xml(untrusted_xml, rules.user_prefix, call.paths, via=rules.via))


def _untrusted_xml(call: _Call) -> bytes:
    from virtwarden.domain.model import XML_LIMIT_BYTES

    untrusted_xml = call.stdin.read(XML_LIMIT_BYTES + 1)
    if not untrusted_xml:
        raise DomainError("libvirt gave no XML on stdin", fix="do not call the hook by hand")
    return untrusted_xml


def _fail(call: _Call, reason: str, stderr: TextIO) -> int:
    if not _may_fail(call):
        log.event(log.Level.CRITICAL, "failed", domain=call.name, op=call.op, reason=reason)
        return 0
    log.event(log.Level.ERROR, "refused", domain=call.name, op=call.op, reason=reason)
    line = " ".join(f"virt-warden refuses {call.name}: {reason}".split())
    stderr.write(f"{printable(line)}\n")
    return 1

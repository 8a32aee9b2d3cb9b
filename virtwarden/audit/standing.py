# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of one domain, as the kernel has it now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import libvirt

from virtwarden import lifecycle
from virtwarden.audit.processes import confinement
from virtwarden.changes import OpenLuks, journal
from virtwarden.errors import WardenError
from virtwarden.guards.base import Case
from virtwarden.guards.displays import has_certificate
from virtwarden.guards.withheld import withheld
from virtwarden.libvirtd.cases import next_case, running_case
from virtwarden.libvirtd.connection import inactive_xml
from virtwarden.nextstart import foresee
from virtwarden.paths import Paths
from virtwarden.pki import authority
from virtwarden.policy import Mode, Policy
from virtwarden.system import certificates


@dataclass(frozen=True)
class Standing:
    """One domain. `guards` are the raised ones; `breaches` the promises that it does not keep.

    `adopted`: nobody enrolled it, and its start gave it its user.
    `withheld` tells of files that only root and VMs can read while it runs.
    `process` is what confines its QEMU, as the kernel says; empty where none runs. `console_ca` is
    the certificate by which viewers know its console, where it has one with TLS.
    """

    name: str
    uuid: str
    state: str
    mode: str
    enrolled: bool
    adopted: bool
    user: str
    uid: int | None
    pid: int | None
    console_ca: str | None
    console_until: str | None
    guards: tuple[str, ...]
    breaches: tuple[str, ...]
    process: Mapping[str, str]
    withheld: tuple[str, ...] = ()


def standing(paths: Paths, policy: Policy, domain: libvirt.virDomain) -> Standing:
    """The state of a domain now, running or off. Raises WardenError where it is unknown."""
    runs = bool(domain.isActive())
    case = running_case(paths, policy, domain) if runs else next_case(paths, policy, domain)
    managed = policy.manages(domain.name())
    own = case.account
    found = Standing(
        name=domain.name(),
        uuid=domain.UUIDString(),
        state="running" if runs else "off",
        mode=case.rules.mode.value if managed else "not managed",
        enrolled=case.domain.enrolment and not case.adopted,
        adopted=runs and managed and case.adopted,
        user=own.name if own else "",
        uid=own.uid if own else None,
        pid=None,
        console_ca=_console_ca(case) if managed else None,
        console_until=_console_until(case) if runs else None,
        guards=(),
        breaches=(),
        process={},
    )
    if not runs:
        return replace(found, breaches=_left_over(paths, domain.UUIDString()))
    raised = case.domain.enrolment and managed and case.rules.mode is not Mode.DISABLED
    if raised:
        breaches = tuple(lifecycle.verify(case))
    elif managed and case.rules.mode is not Mode.DISABLED:
        breaches = (_unguarded(next_case(paths, policy, domain), inactive_xml(domain)),)
    else:
        breaches = ()
    broken = {breach.partition(":")[0] for breach in breaches}
    guards = [guard.NAME for guard in lifecycle.GUARDS if guard.NAME not in broken]
    pid = _pid(case)
    return replace(
        found,
        pid=pid,
        process=confinement(case, pid),
        guards=tuple(guards) if raised else (),
        breaches=breaches,
        withheld=tuple(withheld(case)) if raised else (),
    )


def _console_until(case: Case) -> str | None:
    """The day (UTC) on which the running console's certificate expires; None where it has none."""
    file = Path(case.cell) / "tls" / "server-cert.pem"
    try:
        certificate = certificates.load(file.read_bytes(), str(file))
    except FileNotFoundError:
        return None
    return certificates.expiry(certificate).date().isoformat()


def _console_ca(case: Case) -> str | None:
    if not has_certificate(case) or case.rules.mode is Mode.DISABLED:
        return None
    return str(case.paths.console_ca / authority.CERTIFICATE)


def _unguarded(at_next_start: Case, untrusted_xml: bytes) -> str:
    case = at_next_start
    if case.domain.enrolment:
        return "it runs unguarded until its next start, for which it is enrolled"
    if case.rules.mode is Mode.PERMISSIVE:
        foreseen = foresee(case.paths, case.rules, untrusted_xml)
        if foreseen.may_lack_access:
            return (
                "it runs as libvirt's user, because it is permissive and its own might not be able"
                f" to open all that it needs: {foreseen.reasons[0]}"
            )
    return f"it runs unguarded until its next start; before that: {at_next_start.enrol}"


def _left_over(paths: Paths, domain: str) -> tuple[str, ...]:
    try:
        left = journal.records(paths, domain)
    except WardenError as error:
        return (str(error),)
    return tuple(
        f"left over from its last run: {record.change.describe()} (virt-warden recover {domain})"
        for record in left
        if not (isinstance(record.change, OpenLuks) and not record.change.is_open(paths))
    )


def _pid(case: Case) -> int | None:
    try:
        return lifecycle.pid(case)
    except (OSError, ValueError):
        return None

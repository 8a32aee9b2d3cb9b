"""`virt-warden status`: how each domain stands, asked of the kernel anew."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import libvirt

from virtwarden import lifecycle
from virtwarden.changes import OpenLuks, journal
from virtwarden.cli.processes import confinement
from virtwarden.cli.terminal.table import print_table
from virtwarden.errors import PolicyError, WardenError
from virtwarden.guards.base import Case
from virtwarden.libvirtd.cases import next_case, running_case
from virtwarden.libvirtd.connection import all_domains, connected, find
from virtwarden.paths import Paths
from virtwarden.pki import authority
from virtwarden.policy import Mode, Policy, last_good, load
from virtwarden.system import certificates
from virtwarden.words import printable


@dataclass(frozen=True)
class Standing:
    """One domain. `guards` are those that are raised; `breaches` the promises that are broken.

    `process` is what holds its QEMU, as the kernel says; empty where none runs.
    `console_ca` is the certificate by which viewers know its console, where it has one with TLS.
    """

    name: str
    uuid: str
    state: str
    mode: str
    enrolled: bool
    user: str
    uid: int | None
    pid: int | None
    console_ca: str | None
    console_until: str | None
    guards: tuple[str, ...]
    breaches: tuple[str, ...]
    process: Mapping[str, str]


def arguments(parser: argparse.ArgumentParser) -> None:
    """See Command."""
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("domains", nargs="*", metavar="DOMAIN", help="all, if none is named")


def run(options: argparse.Namespace, paths: Paths) -> int:
    """See Command."""
    return status(paths, options.domains, as_json=options.json)


def status(paths: Paths, names: list[str], *, as_json: bool) -> int:
    """Print how the named domains, or all, stand. Gives 1 where a promise is broken, else 0.

    A broken policy, which refuses starts, is told and gives 1 too. What runs is held to the last
    good one meanwhile.
    """
    policy, is_broken = _policy(paths)
    with connected() as connection:
        chosen = [find(connection, name) for name in names] or all_domains(connection)
        standings = [_standing(paths, policy, domain) for domain in chosen]
    if as_json:
        print(json.dumps([asdict(standing) for standing in standings], indent=2))
    else:
        _print_table(standings)
        for standing in standings if names else ():
            _print_process(standing)
    return int(is_broken or any(standing.breaches for standing in standings))


def _policy(paths: Paths) -> tuple[Policy, bool]:
    try:
        return load(paths), False
    except PolicyError as error:
        former = last_good(paths)
        if former is None:
            raise
        print(f"virt-warden: {error}; until then: by the policy as it was", file=sys.stderr)
        return former, True


def _standing(paths: Paths, policy: Policy, domain: libvirt.virDomain) -> Standing:
    runs = bool(domain.isActive())
    case = running_case(paths, policy, domain) if runs else next_case(paths, policy, domain)
    managed = policy.manages(domain.name())
    own = case.account
    standing = Standing(
        name=domain.name(),
        uuid=domain.UUIDString(),
        state="running" if runs else "off",
        mode=case.rules.mode.value if managed else "not managed",
        enrolled=case.domain.enrolment,
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
        return replace(standing, breaches=_left_over(paths, domain.UUIDString()))
    raised = case.domain.enrolment and managed and case.rules.mode is not Mode.DISABLED
    if raised:
        breaches = tuple(lifecycle.verify(case))
    elif managed and case.rules.mode is not Mode.DISABLED:
        breaches = (_unguarded(next_case(paths, policy, domain)),)
    else:
        breaches = ()
    broken = {breach.partition(":")[0] for breach in breaches}
    guards = [guard.NAME for guard in lifecycle.GUARDS if guard.NAME not in broken]
    pid = _pid(case)
    return replace(
        standing,
        pid=pid,
        process=confinement(case, pid),
        guards=tuple(guards) if raised else (),
        breaches=breaches,
    )


def _console_until(case: Case) -> str | None:
    """The day (UTC) on which the running console's certificate runs out; None where it has none."""
    file = Path(case.cell) / "tls" / "server-cert.pem"
    try:
        certificate = certificates.load(file.read_bytes(), str(file))
    except FileNotFoundError:
        return None
    return certificates.expiry(certificate).date().isoformat()


def _console_ca(case: Case) -> str | None:
    has_console = any(display.kind == "vnc" for display in case.domain.displays)
    if case.rules.display == "off" or not has_console:
        return None
    if case.rules.tls != "required" or case.rules.mode is Mode.DISABLED:
        return None
    return str(case.paths.console_ca / authority.CERTIFICATE)


def _unguarded(at_next_start: Case) -> str:
    if at_next_start.domain.enrolment:
        return "it runs unguarded until its next start, for which it is enrolled"
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


def _print_table(standings: list[Standing]) -> None:
    heads = ("DOMAIN", "STATE", "MODE", "USER", "UID", "PID", "GUARDS")
    print_table([heads, *(_row(standing) for standing in standings)])
    for standing in standings:
        for breach in standing.breaches:
            print(f"! {standing.name}: {breach}")
    ends = sorted(standing.console_until for standing in standings if standing.console_until)
    if ends:
        print(f"The first console certificate runs out on {ends[0]} (virt-warden pki renew).")
    for known_by in sorted({standing.console_ca for standing in standings if standing.console_ca}):
        if Path(known_by).exists():
            print(f"Viewers know these consoles by the authority {known_by}: copy it to them.")
        else:
            print(
                "The consoles' authority is made at the first start, sealed to this host; for one"
                " with a passphrase, before that: virt-warden pki init consoles"
            )


def _print_process(standing: Standing) -> None:
    if standing.process:
        print(f"\n{standing.name}, process {standing.pid}:")
    for what, seen in standing.process.items():
        print(f"  {what:<18}{printable(seen)}")


def _row(standing: Standing) -> tuple[str, ...]:
    return (
        standing.name,
        standing.state,
        standing.mode,
        standing.user or ("at the first start" if standing.enrolled else "not enrolled"),
        "-" if standing.uid is None else str(standing.uid),
        "-" if standing.pid is None else str(standing.pid),
        _raised(standing.guards),
    )


def _raised(guards: tuple[str, ...]) -> str:
    """In so few words that a line of the table still fits a terminal."""
    lowered = [guard.NAME for guard in lifecycle.GUARDS if guard.NAME not in guards]
    if not guards:
        return "-"
    return f"all but {' '.join(lowered)}" if lowered else "all"

# SPDX-License-Identifier: GPL-2.0-or-later
"""`virt-warden status`: how each domain stands."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from virtwarden import lifecycle
from virtwarden.audit.standing import Standing, standing
from virtwarden.cli.terminal.table import print_table
from virtwarden.errors import PolicyError
from virtwarden.libvirtd.connection import all_domains, connected, find
from virtwarden.paths import Paths
from virtwarden.policy import Policy, last_good, load
from virtwarden.watch.alive import is_watched
from virtwarden.words import printable


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("domains", nargs="*", metavar="DOMAIN", help="default: all")


def run(options: argparse.Namespace, paths: Paths) -> int:
    return status(paths, options.domains, as_json=options.json)


def status(paths: Paths, names: list[str], *, as_json: bool) -> int:
    """Print the state of the named domains, or of all. Gives 1 where there is a breach, else 0.

    Also reports a broken policy, which refuses starts, and gives 1 for it. Running domains are then
    checked against the last good policy.
    """
    policy, is_broken = _policy(paths)
    with connected() as connection:
        chosen = [find(connection, name) for name in names] or all_domains(connection)
        standings = [standing(paths, policy, domain) for domain in chosen]
    if as_json:
        watched = is_watched(paths)
        found = [asdict(each) | {"watched": watched} for each in standings]
        print(json.dumps(found, indent=2))
    else:
        _print_table(standings)
        _print_watch(paths, standings)
        for each in standings if names else ():
            _print_process(each)
    return int(is_broken or any(each.breaches for each in standings))


def _policy(paths: Paths) -> tuple[Policy, bool]:
    try:
        return load(paths), False
    except PolicyError as error:
        former = last_good(paths)
        if former is None:
            raise
        print(
            f"virt-warden: {error}; until it is fixed, the last good policy counts", file=sys.stderr
        )
        return former, True


def _print_table(standings: list[Standing]) -> None:
    heads = ("DOMAIN", "STATE", "MODE", "USER", "UID", "PID", "GUARDS")
    print_table([heads, *(_row(each) for each in standings)])
    for each in standings:
        for breach in each.breaches:
            print(f"! {each.name}: {breach}")
    for each in standings:
        if each.adopted:
            print(
                f"{each.name} was not enrolled when it started. Until its next start, disks cannot"
                " be attached, nor snapshots and screenshots made."
            )
    for note in dict.fromkeys(note for each in standings for note in each.withheld):
        print(f"- {note}")
    ends = sorted(each.console_until for each in standings if each.console_until)
    if ends:
        print(f"The first console certificate expires on {ends[0]} (virt-warden pki renew).")
    for known_by in sorted({each.console_ca for each in standings if each.console_ca}):
        if Path(known_by).exists():
            print(f"Viewers must trust the console CA: copy {known_by} to them.")
        else:
            print(
                "The first start makes the console CA, sealed to this host. For a passphrase, run"
                " first: virt-warden pki init consoles"
            )


def _print_watch(paths: Paths, standings: list[Standing]) -> None:
    if any(each.guards for each in standings) and not is_watched(paths):
        print(
            "Nobody watches: what somebody removes of the rules of running VMs is not restored"
            " until virt-warden.service runs (systemctl start virt-warden)."
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
    """The guards in so few words that a line of the table still fits a terminal."""
    lowered = [guard.NAME for guard in lifecycle.GUARDS if guard.NAME not in guards]
    if not guards:
        return "-"
    return f"all but {' '.join(lowered)}" if lowered else "all"

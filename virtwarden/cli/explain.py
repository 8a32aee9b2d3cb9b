# SPDX-License-Identifier: GPL-2.0-or-later
"""`virt-warden explain`: a domain's rules, where each is from, and what a start would do."""

from __future__ import annotations

import argparse

from virtwarden import lifecycle
from virtwarden.changes import Change
from virtwarden.guards import host
from virtwarden.guards.base import Case, Guard
from virtwarden.libvirtd.cases import at_start, next_case
from virtwarden.libvirtd.connection import connected, find, inactive_xml
from virtwarden.nextstart import foresee
from virtwarden.paths import Paths
from virtwarden.policy import KeySource, Mode, Policy, load
from virtwarden.policy.allowances import BROAD_EXCEPTION


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("domain", metavar="DOMAIN", help="by name or UUID")


def run(options: argparse.Namespace, paths: Paths) -> int:
    return explain(paths, options.domain)


def explain(paths: Paths, name: str) -> int:
    """Print it, changing nothing. Gives 1 where a start would be refused, else 0."""
    policy = load(paths)
    with connected() as connection:
        domain = find(connection, name)
        case = next_case(paths, policy, domain)
        enrolled = foresee(paths, case.rules, inactive_xml(domain))
    if not policy.manages(case.domain.name):
        print(
            f"{case.domain.name} is unmanaged ({policy.where('managed')}):"
            " virt-warden does not guard it."
        )
        return 0
    _print_rules(policy, case)
    found = lifecycle.reviews(case)
    refusals = [refusal for reasons in found.values() for refusal in reasons]
    enforcing = case.rules.mode is Mode.ENFORCING
    for refusal in dict.fromkeys([*map(str, refusals), *map(str, enrolled.reasons)]):
        print(f"A start {'is' if enforcing else 'would be'} refused: {refusal}")
    if not (refusals and enforcing):
        _print_plan(case, lifecycle.willing(case, found))
    return int(bool(refusals) and enforcing)


def _print_rules(policy: Policy, case: Case) -> None:
    print(f"Rules of {case.domain.name}:")
    rules = case.rules
    for key in sorted(rules.origins):
        print(f"  {key} = {_shown(rules.value(key))}   ({rules.where(key)})")
    line = host.line_of(case)
    if line and BROAD_EXCEPTION in rules.exceptions:
        print(f'What "{BROAD_EXCEPTION}" opens for it, by name: {line}')


def _shown(value: object) -> str:
    if isinstance(value, KeySource):
        return f"{value.kind} {value.value}".rstrip()
    if isinstance(value, frozenset | tuple):
        return "[" + ", ".join(str(item) for item in sorted(value, key=str)) + "]"
    return str(getattr(value, "value", value))


def _print_plan(case: Case, guards: list[Guard]) -> None:
    prepared = lifecycle.plan(case, guards)
    started = [
        change for change in lifecycle.plan(at_start(case), guards) if change not in prepared
    ]
    steps: list[tuple[str, list[Change]]] = [
        ("At prepare (no tap yet)", prepared),
        ("At start (QEMU not running yet)", started),
    ]
    for title, changes in steps:
        print(f"{title}:")
        for change in changes:
            print(f"  - {change.describe()}")
    print("After the stop, all changes are undone in reverse order; the user stays.")

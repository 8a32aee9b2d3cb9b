# SPDX-License-Identifier: GPL-2.0-or-later
"""`virt-warden check`: what the policy asks for that this host, or a domain on it, cannot keep."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import libvirt

from virtwarden import lifecycle
from virtwarden.audit.unmet import unmet
from virtwarden.errors import WardenError
from virtwarden.guards.withheld import withheld
from virtwarden.libvirtd.cases import next_case
from virtwarden.libvirtd.connection import connected, inactive_xml, persistent
from virtwarden.libvirtd.graduating import stale
from virtwarden.nextstart import foresee, untried
from virtwarden.paths import Paths
from virtwarden.policy import Mode, Policy, load
from virtwarden.words import shown


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command has no arguments."""


def run(options: argparse.Namespace, paths: Paths) -> int:
    """Gives 1 where something cannot be kept. What one should know besides begins with a dash.

    Raises PolicyError where the policy itself cannot be used.
    """
    policy = load(paths)
    with connected() as connection:
        domains = persistent(connection)
        managed = [each for each in domains if policy.manages(each.name())]
        cases = [next_case(paths, policy, domain) for domain in managed]
        found = list(unmet(policy, [case.domain for case in cases]))
        for domain in managed:
            found += _of_domain(paths, policy, domain)
        notes = [note for case in cases for note in withheld(case)]
        for domain in managed:
            notes += _untried(policy, domain)
    for match in stale(paths, [domain.name() for domain in domains]):
        name = shown(match)
        found.append(f"{name} is permissive, and no domain any more: virt-warden graduate {name}")
    for line in dict.fromkeys([*found, *(f"- {note}" for note in notes)]):
        print(line)
    if not found:
        print(f"This host can do all that the policy asks for, for {len(managed)} managed domains.")
    return int(bool(found))


def _untried(policy: Policy, domain: libvirt.virDomain) -> list[str]:
    rules = policy.rules_for(domain.name())
    is_enforcing = rules.mode is Mode.ENFORCING
    return untried(rules, inactive_xml(domain)) if is_enforcing else []


def _of_domain(paths: Paths, policy: Policy, domain: libvirt.virDomain) -> Iterator[str]:
    rules, name = policy.rules_for(domain.name()), shown(domain.name())
    if rules.mode is Mode.DISABLED:
        return
    against: list[WardenError] = []
    if rules.mode is Mode.ENFORCING:
        case = next_case(paths, policy, domain)
        against += [reason for found in lifecycle.reviews(case).values() for reason in found]
    against += foresee(paths, rules, inactive_xml(domain)).reasons
    is_refused = "is refused" if rules.mode is Mode.ENFORCING else "would be refused"
    for reason in against:
        yield f"{name} {is_refused}: {reason}"
    if rules.is_permissive_by(paths.found):
        when = "once nothing of this is left" if against else "nothing is against it any more"
        yield f"{name} is permissive since the installation; {when}: virt-warden graduate {name}"

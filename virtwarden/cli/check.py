# SPDX-License-Identifier: GPL-2.0-or-later
"""`virt-warden check`: what the policy asks for that this host, or a domain on it, cannot keep."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator

from virtwarden import lifecycle
from virtwarden.audit.unmet import unmet
from virtwarden.guards.base import Case
from virtwarden.guards.withheld import withheld
from virtwarden.libvirtd.cases import next_case
from virtwarden.libvirtd.connection import connected, persistent
from virtwarden.paths import Paths
from virtwarden.policy import Mode, load
from virtwarden.words import shown


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command has no arguments."""


def run(options: argparse.Namespace, paths: Paths) -> int:
    """Gives 1 where something cannot be kept. What one should know besides begins with a dash.

    Raises PolicyError where the policy itself cannot be used.
    """
    policy = load(paths)
    with connected() as connection:
        cases = [next_case(paths, policy, domain) for domain in persistent(connection)]
    managed = [case for case in cases if policy.manages(case.domain.name)]
    found = [*unmet(policy, [case.domain for case in managed]), *_refused(managed)]
    notes = [note for case in managed for note in withheld(case)]
    for line in dict.fromkeys([*found, *(f"- {note}" for note in notes)]):
        print(line)
    if not found:
        print(f"This host can do all that the policy asks for, for {len(managed)} managed domains.")
    return int(bool(found))


def _refused(cases: Iterable[Case]) -> Iterator[str]:
    for case in cases:
        refuses = {Mode.ENFORCING: "is refused", Mode.PERMISSIVE: "would be refused"}
        if case.rules.mode in refuses:
            for found in lifecycle.reviews(case).values():
                for refusal in found:
                    yield f"{shown(case.domain.name)} {refuses[case.rules.mode]}: {refusal}"

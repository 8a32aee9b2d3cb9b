# SPDX-License-Identifier: GPL-2.0-or-later
"""The one list of checks, and the domains that they look at."""

from __future__ import annotations

from collections.abc import Sequence

from virtwarden.audit import (
    adoption,
    attacks,
    bridged,
    certificates,
    domains,
    dropped,
    hooks,
    kernel,
    libvirt_settings,
    network,
    remote,
    shares,
    updates,
)
from virtwarden.audit import policy as policy_checks
from virtwarden.audit.item import Item
from virtwarden.guards.base import Case
from virtwarden.libvirtd.cases import next_case, running_case
from virtwarden.libvirtd.connection import all_domains, connected
from virtwarden.paths import Paths
from virtwarden.policy import Policy


def items(paths: Paths, policy: Policy, cases: Sequence[tuple[Case, bool]]) -> list[Item]:
    """All items; each domain's case comes with whether the policy manages it."""
    managed = [case.domain for case, is_managed in cases if is_managed]
    return [
        *hooks.checks(paths),
        *adoption.checks(paths),
        *policy_checks.checks(paths, policy, managed),
        *kernel.checks(),
        *libvirt_settings.checks(),
        *updates.checks(),
        *network.checks(policy),
        *bridged.checks(managed),
        *remote.checks(),
        *certificates.authority(paths),
        *(i for case, is_managed in cases for i in domains.checks(case, managed=is_managed)),
        *shares.checks(managed),
        *attacks.checks(managed),
        *dropped.checks(paths, managed),
    ]


def cases(paths: Paths, policy: Policy) -> list[tuple[Case, bool]]:
    """Each domain as it runs, or as it would be at its next start."""
    with connected() as connection:
        return [
            (
                running_case(paths, policy, domain)
                if domain.isActive()
                else next_case(paths, policy, domain),
                policy.manages(domain.name()),
            )
            for domain in all_domains(connection)
        ]

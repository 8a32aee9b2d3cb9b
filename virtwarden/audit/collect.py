"""The one list of what is looked at."""

from __future__ import annotations

from collections.abc import Sequence

from virtwarden.audit import (
    certificates,
    domains,
    hooks,
    kernel,
    libvirt_settings,
    network,
    remote,
    updates,
)
from virtwarden.audit import policy as policy_checks
from virtwarden.audit.item import Item
from virtwarden.guards.base import Case
from virtwarden.paths import Paths
from virtwarden.policy import Policy


def items(paths: Paths, policy: Policy, cases: Sequence[tuple[Case, bool]]) -> list[Item]:
    """All of them; each domain's case comes with whether the policy manages it."""
    managed = [case.domain for case, is_managed in cases if is_managed]
    return [
        *hooks.checks(paths),
        *policy_checks.checks(policy, managed),
        *kernel.checks(),
        *libvirt_settings.checks(),
        *updates.checks(),
        *network.checks(policy),
        *remote.checks(),
        *certificates.authority(paths),
        *(i for case, is_managed in cases for i in domains.checks(case, managed=is_managed)),
    ]

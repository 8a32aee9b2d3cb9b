"""The one list of what is looked at."""

from __future__ import annotations

from collections.abc import Iterable

from virtwarden.audit import domains, kernel, libvirt_settings, network, updates
from virtwarden.audit.item import Item
from virtwarden.guards.base import Case
from virtwarden.paths import Paths
from virtwarden.pki import checks as certificates
from virtwarden.policy import Policy
from virtwarden.remote import checks as remote_checks


def host_items(paths: Paths, policy: Policy) -> list[Item]:
    """All of the host's items."""
    return [
        *kernel.checks(),
        *libvirt_settings.checks(),
        *updates.checks(),
        *network.checks(policy),
        *remote_checks.checks(),
        *certificates.authority(paths),
    ]


def domain_items(cases: Iterable[tuple[Case, bool]]) -> list[Item]:
    """All of the domains' items; each case comes with whether the policy manages it."""
    return [item for case, managed in cases for item in domains.checks(case, managed=managed)]

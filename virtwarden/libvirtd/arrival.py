# SPDX-License-Identifier: GPL-2.0-or-later
"""Ends what a domain needed for its arrival by a migration: libvirt calls no hook then."""

from __future__ import annotations

import libvirt

from virtwarden import lifecycle
from virtwarden.changes import arrivals, journal
from virtwarden.libvirtd.cases import running_case
from virtwarden.paths import Paths
from virtwarden.policy import Policy


def settle(paths: Paths, policy: Policy, domain: libvirt.virDomain) -> None:
    """Have a domain that has arrived answer no more at the ports of migration.

    Harmless for another domain. Raises WardenError.
    """
    uuid = domain.UUIDString()
    if not arrivals.is_noted(paths, uuid) or not _has_arrived(domain):
        return
    case = running_case(paths, policy, domain)
    with journal.locked(paths, uuid):
        lifecycle.settle(case)


def _has_arrived(domain: libvirt.virDomain) -> bool:
    """While its memory still comes it is paused, or runs in post-copy."""
    state, reason = domain.state()
    runs = state == libvirt.VIR_DOMAIN_RUNNING
    return bool(runs and reason != libvirt.VIR_DOMAIN_RUNNING_POSTCOPY)

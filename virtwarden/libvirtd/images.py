# SPDX-License-Identifier: GPL-2.0-or-later
"""Remembers images that a running domain gets, for which libvirt calls no hook."""

from __future__ import annotations

import libvirt

from virtwarden import lifecycle
from virtwarden.changes import journal
from virtwarden.libvirtd.cases import running_case
from virtwarden.paths import Paths
from virtwarden.policy import Policy


def remember(paths: Paths, policy: Policy, domain: libvirt.virDomain) -> None:
    """Remember what a managed domain's user can write now: it may be taken away before the stop."""
    if policy.manages(domain.name()) and domain.isActive():
        running = running_case(paths, policy, domain).domain
        with journal.locked(paths, running.uuid):
            lifecycle.remember_attached(paths, running)

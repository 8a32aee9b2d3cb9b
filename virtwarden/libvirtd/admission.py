# SPDX-License-Identifier: GPL-2.0-or-later
"""Admits NICs that were attached to a running domain: libvirt calls no hook for them."""

from __future__ import annotations

import libvirt

from virtwarden import gate
from virtwarden.changes import journal
from virtwarden.libvirtd.cases import running_case
from virtwarden.paths import Paths
from virtwarden.policy import Policy


def admit(paths: Paths, policy: Policy, domain: libvirt.virDomain) -> list[str]:
    """Admit the taps that may be admitted, and give the names of those.

    Raises WardenError where the policy or the host has something against it.
    """
    if not domain.isActive() or not gate.is_up(paths):
        return []
    case = running_case(paths, policy, domain)
    if policy.manages(domain.name()):
        from virtwarden import lifecycle

        with journal.locked(paths, case.domain.uuid):
            lifecycle.take_back_attached(case)
            return lifecycle.admit_attached(case)
    queues = {nic.tap: nic.queue_count for nic in case.domain.nics if nic.tap}
    waiting = [tap.name for tap in gate.shut_out(paths, queues)]
    gate.admit(paths, {name: queues[name] for name in waiting})
    return waiting

# SPDX-License-Identifier: GPL-2.0-or-later
"""virt-warden's own hooks: without them libvirt calls nothing of virt-warden."""

from __future__ import annotations

import os
from collections.abc import Iterator

from virtwarden.audit.item import Check, Item, Severity
from virtwarden.package import hookfile
from virtwarden.paths import Paths

_FIX = "virt-warden package configure, then: systemctl reload libvirtd"
HOOKS = {
    "qemu": Check(
        "host.hook.qemu",
        Severity.CRITICAL,
        "libvirt calls virt-warden's hook when a domain starts",
        "libvirt does not call virt-warden's hook when a domain starts",
        "No guard is raised: enrolled domains do not start, and all others start unguarded.",
        _FIX,
    ),
    "network": Check(
        "host.hook.network",
        Severity.MEDIUM,
        "libvirt calls virt-warden's hook when a NIC joins a network",
        "libvirt does not call virt-warden's hook when a NIC joins a network",
        "A NIC that joins another zone's network is not refused, only reported afterwards.",
        _FIX,
    ),
}


def checks(paths: Paths) -> Iterator[Item]:
    """Look for the hooks where libvirt looks for them."""
    for kind, check in HOOKS.items():
        where = hookfile.placed(paths, kind)
        if where is None:
            yield check.bad(f"there is no hook of ours at {paths.hooks / kind} or in {kind}.d")
        else:
            executable = os.access(where, os.X_OK)
            seen = f"{where}{'' if executable else ' cannot be executed'}"
            yield check.judged(executable, seen)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Logs that a guest sends what it may not: the kernel dropped it, and counted."""

from __future__ import annotations

import libvirt

from virtwarden import drops, gate, log
from virtwarden.drops import Drops
from virtwarden.errors import CommandError
from virtwarden.libvirtd.connection import known
from virtwarden.paths import Paths


def tell(paths: Paths, connection: libvirt.virConnect) -> None:
    """Log the frames that were dropped since the last time."""
    if not gate.is_up(paths):
        return

    def spoofing(uuid: str, promise: str, untold: list[Drops]) -> None:
        domain = known(connection, uuid)
        log.event(
            log.Level.WARNING,
            "spoofing",
            domain=domain.name() if domain else "",
            uuid=uuid,
            promise=promise,
            frames=sum(each.frames for each in untold),
            nics=",".join(each.nic for each in untold),
        )

    try:
        gate.dropped(paths)
    except CommandError as error:
        # Rules that are gone are another's to tell: nothing was counted.
        log.event(log.Level.WARNING, "failed", op="count", reason=error)
        return
    drops.tell(paths, spoofing)

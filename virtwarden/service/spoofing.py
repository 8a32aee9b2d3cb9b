# SPDX-License-Identifier: GPL-2.0-or-later
"""Logs that a guest sends what it may not: the kernel dropped it, and counted."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import libvirt

from virtwarden import drops, gate, log
from virtwarden.drops import Drops
from virtwarden.errors import WardenError
from virtwarden.libvirtd.connection import known
from virtwarden.paths import Paths


def tell(paths: Paths, connection: libvirt.virConnect) -> None:
    """Log the frames that were dropped since the last time."""
    if not gate.is_up(paths):
        return
    try:
        gate.dropped(paths)
        untold = drops.take_untold(paths)
    except (WardenError, OSError, ValueError) as error:  # as where /run is full
        log.event(log.Level.WARNING, "failed", op="count", reason=error)
        return
    for each in untold:
        _log(connection, each)


def _log(connection: libvirt.virConnect, untold: Sequence[Drops]) -> None:
    """Log what one promise dropped of one domain."""
    domain, promise = untold[0].domain, untold[0].promise
    name = ""
    with suppress(libvirt.libvirtError):  # the connection is lost
        found = known(connection, domain)
        name = found.name() if found else ""
    log.event(
        log.Level.WARNING,
        "spoofing",
        domain=name,
        uuid=domain,
        promise=promise,
        frames=sum(each.frames for each in untold),
        nics=",".join(each.nic for each in untold),
    )

# SPDX-License-Identifier: GPL-2.0-or-later
"""Revokes console tickets whose console service was killed, at once."""

from __future__ import annotations

import libvirt

from virtwarden import log
from virtwarden.consoled import abandoned
from virtwarden.paths import Paths


class Revoker:
    """Remembers which tickets could not be revoked: QEMU may hang, and each try takes long."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._failed: frozenset[str] = frozenset()

    def look_around(self, connection: libvirt.virConnect, *, again: bool) -> None:
        """Revoke what is to be revoked; `again`, try those too that failed before."""
        former = frozenset() if again else self._failed
        failed = abandoned.revoke(self._paths, connection, former)
        for domain, error in failed.items():
            if domain not in self._failed:
                log.event(log.Level.ERROR, "failed", uuid=domain, op="revoke", reason=error)
        self._failed = former | frozenset(failed)

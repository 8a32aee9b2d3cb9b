# SPDX-License-Identifier: GPL-2.0-or-later
"""Admits the taps of NICs that were attached to running domains, and foreign taps.

The gate shuts them out whether or not this runs. This only saves an admin from admitting them by
hand. It also ends what a migration needed, and remembers the images that a running domain gets.
"""

from __future__ import annotations

import os
from contextlib import suppress

import libvirt

from virtwarden import gate, log
from virtwarden.errors import PolicyError, WardenError
from virtwarden.libvirtd import admission, arrival, images
from virtwarden.paths import Paths
from virtwarden.policy import load

# One process makes a tap and hands it to another. For this many ticks the admitter looks again
# which process has it.
_LOOKS = 10


class Admitter:
    """Remembers which interfaces the host had, and which refusals it has logged."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._refused: dict[str, str] = {}
        self._interfaces: frozenset[str] = frozenset()
        self._looks_left = 0

    def admit(self, connection: libvirt.virConnect, uuid: str) -> None:
        """Admit the NICs that were attached to a running domain, where the policy allows it.

        Remember its images before that.

        Logs a refusal once. Where the connection to libvirt is lost, raises the error of the call
        that failed.
        """
        name = ""
        try:
            with suppress(PolicyError):  # the enroller reports it
                policy = load(self._paths, store=True)
                domain = connection.lookupByUUIDString(uuid)
                name = domain.name()
                images.remember(self._paths, policy, domain)
                arrival.settle(self._paths, policy, domain)
                admission.admit(self._paths, policy, domain)
                self._refused.pop(uuid, None)
        except (WardenError, OSError, libvirt.libvirtError) as error:
            if not connection.isAlive():
                raise
            self._tell(uuid, name, error)

    def _tell(self, uuid: str, name: str, error: Exception) -> None:
        is_gone = isinstance(error, libvirt.libvirtError)
        if not is_gone and self._refused.get(uuid) != str(error):
            self._refused[uuid] = str(error)
            log.event(log.Level.ERROR, "shut-out", domain=name, uuid=uuid, reason=error)

    def admit_all(self, connection: libvirt.virConnect) -> None:
        """Admit what was attached while the service was away, or what the policy now allows."""
        if gate.is_up(self._paths):
            self._admit_foreign()
            for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
                self.admit(connection, domain.UUIDString())

    def look_around(self) -> None:
        """Admit foreign taps that appeared. Call it at each tick."""
        interfaces = frozenset(os.listdir("/sys/class/net"))  # noqa: PTH208
        if interfaces - self._interfaces:
            self._looks_left = _LOOKS
        self._interfaces = interfaces
        if self._looks_left:
            self._looks_left -= 1
            self._admit_foreign()

    def _admit_foreign(self) -> None:
        with suppress(WardenError, OSError):  # they stay shut out until the next tick
            for tap in gate.admit_foreign(self._paths, self._named()):
                log.event(log.Level.NOTICE, "let-in", taps=tap)

    def _named(self) -> tuple[str, ...]:
        """The foreign taps that the policy names; none of them where it is broken."""
        if not gate.is_up(self._paths):
            return ()
        try:
            names: tuple[str, ...] = load(self._paths).host["foreign_taps"].value
        except PolicyError:
            return ()
        return names

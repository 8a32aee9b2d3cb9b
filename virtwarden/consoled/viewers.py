# SPDX-License-Identifier: GPL-2.0-or-later
"""Who connects with a ticket: one viewer, and none once a newer ticket exists."""

from __future__ import annotations

import time

import libvirt

from virtwarden import log
from virtwarden.consoled.latest import Latest
from virtwarden.consoled.logins import Login
from virtwarden.consoled.operators import Operator
from virtwarden.errors import HostError

_TICK_MS = 500
_LONGEST_ARRIVAL_SECONDS = 10


def _now() -> float:
    """Seconds that nobody can set back and that count while the host sleeps; clock_gettime(2)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Watch:
    """Follows a ticket with libvirt's events about the display's viewers.

    libvirt's graphics events: a viewer connects, is accepted (initialize), disconnects.
    """

    def __init__(
        self,
        hypervisor: libvirt.virConnect,
        domain: libvirt.virDomain,
        operator: Operator,
        login: Login,
        latest: Latest,
    ) -> None:
        self._domain = domain
        self._login = login
        self._latest = latest
        self._operator = operator
        self._connecting: set[tuple[str, str]] = set()
        self._viewer = ""
        self._others: list[str] = []
        self._last_came = 0.0
        kind = libvirt.VIR_DOMAIN_EVENT_ID_GRAPHICS
        hypervisor.domainEventRegisterAny(domain, kind, self._hear, None)

    def until_used(self, seconds: int) -> None:
        """Wait for the first viewer that QEMU accepts, and make it accept none after that.

        QEMU goes by the host's clock, which can be set back. So a ticket that nobody used is also
        revoked, unless a newer one has taken its place. QEMU counts whole seconds.
        """
        deadline = _now() + seconds + 1
        # libvirt's loop waits on through a signal. The timer makes it return, so that Python sees
        # the signal.
        libvirt.virEventAddTimeout(_TICK_MS, lambda *_: None, None)
        try:
            while not self._viewer and self._latest.holds() and _now() < deadline:
                libvirt.virEventRunDefaultImpl()
            self._let_complete()
        finally:
            # A newer ticket has taken the place of the display's own password already.
            if self._login.user or self._latest.holds():
                self.end()
        if self._viewer:
            for viewer in (self._viewer, *self._others):
                self._log(log.Level.NOTICE, "console-opened", viewer=viewer)
        else:
            self._log(log.Level.NOTICE, "console-unused")

    def _let_complete(self) -> None:
        """Let the viewer open all of its connections, also where the ticket's time is over."""
        if not (self._viewer and self._login.quiet_seconds and self._latest.holds()):
            return
        quiet, latest = self._login.quiet_seconds, _now() + _LONGEST_ARRIVAL_SECONDS
        self._login.keep(_LONGEST_ARRIVAL_SECONDS)
        while self._latest.holds() and _now() < min(self._last_came + quiet, latest):
            libvirt.virEventRunDefaultImpl()

    def end(self) -> None:
        """Make QEMU accept no more viewers with this ticket. Raises HostError."""
        try:
            self._login.revoke()
        except HostError:
            if self._runs():  # a domain that stopped accepts none
                raise
        finally:
            self._latest.end()

    def _runs(self) -> bool:
        try:
            return bool(self._domain.isActive())
        except libvirt.libvirtError:  # a domain that is not defined is gone with its stop
            return False

    def _hear(
        self,
        _hypervisor: libvirt.virConnect,
        _domain: libvirt.virDomain,
        phase: int,
        _local: dict[str, str],
        remote: dict[str, str],
        _scheme: str,
        subject: list[tuple[str, str]],
        *_: object,
    ) -> None:
        viewer = (remote["node"], remote["service"])
        if phase == libvirt.VIR_DOMAIN_EVENT_GRAPHICS_CONNECT:
            self._connecting.add(viewer)
        elif phase == libvirt.VIR_DOMAIN_EVENT_GRAPHICS_INITIALIZE:
            self._connecting.discard(viewer)
            if self._is_ours(subject):
                self._came(viewer[0])
        elif viewer in self._connecting:
            self._connecting.discard(viewer)
            self._log(log.Level.WARNING, "console-denied", viewer=viewer[0])

    def _came(self, viewer: str) -> None:
        self._last_came = _now()
        self._viewer = self._viewer or viewer
        if viewer not in (self._viewer, *self._others):
            self._others.append(viewer)

    def _is_ours(self, subject: list[tuple[str, str]]) -> bool:
        """Whether the viewer used this ticket; VNC's own password has no name."""
        if not self._latest.holds():
            return False
        return not self._login.user or ("saslUsername", self._login.user) in subject

    def _log(self, level: log.Level, what: str, **more: object) -> None:
        name, uuid = self._domain.name(), self._domain.UUIDString()
        log.event(level, what, domain=name, uuid=uuid, operator=self._operator.name, **more)

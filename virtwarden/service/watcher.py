# SPDX-License-Identifier: GPL-2.0-or-later
"""Listens to libvirt, and has each domain seen to when something happens to it.

The callbacks only note what libvirt says. Calls to libvirt come after its event loop returns.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

import libvirt

from virtwarden import log
from virtwarden.errors import WardenError
from virtwarden.paths import Paths
from virtwarden.policy import cache
from virtwarden.service import spoofing
from virtwarden.service.admitter import Admitter
from virtwarden.service.definitions import Definitions
from virtwarden.service.enroller import Enroller
from virtwarden.service.revoker import Revoker
from virtwarden.service.traces import DomainFiles, is_locked
from virtwarden.watch import notify, rules

_URI = "qemu:///system"
_TICK_MS = 1000
# Each this many ticks, see again to the domains that could not be seen to.
_RETRY_TICKS = 30
# Each this many ticks, ask the kernel how many frames it dropped.
_COUNT_TICKS = 60
_KEEPALIVE_SECONDS = 5
_KEEPALIVE_COUNT = 6
# During these events libvirt would answer a call only after the start is over.
_WHILE_IT_STARTS = (libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_RESUMED)

# A migration has ended, and libvirt answers again.
_ARRIVED = (libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_MIGRATED)


def watch(paths: Paths, beat: Callable[[], None]) -> None:
    """Listen until the parent process, the service, is gone.

    `beat` is called every few seconds while the rules are watched.
    """
    libvirt.registerErrorHandler(lambda *_: None, None)  # by default it prints on stderr
    libvirt.virEventRegisterDefaultImpl()
    watcher = _Watcher(paths)
    libvirt.virEventAddTimeout(_TICK_MS, watcher.note_tick, None)
    service = os.getppid()
    notify.start(paths)
    rules.keep(paths, watcher.note_restored, beat)
    while os.getppid() == service:
        watcher.act()
        libvirt.virEventRunDefaultImpl()


class _Watcher:
    """Keeps one connection to libvirt at a time, and the work that is due on it."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._enroller: Enroller | None = None
        self._connection: libvirt.virConnect | None = None
        self._definitions: Definitions | None = None
        self._lost = ""
        self._ticks = 0
        self._is_tick = True
        self._due: dict[str, None] = {}
        self._attached: dict[str, None] = {}
        self._admitter = Admitter(paths)
        self._revoker = Revoker(paths)
        self._is_all_due = False
        self._are_taps_due = False
        self._policy = cache.look(paths)
        self._files = DomainFiles(paths.libvirt_config)

    def note_tick(self, _timer: int, _opaque: object) -> None:
        """Note that a tick came. libvirt's event loop calls it."""
        self._is_tick = True

    def note_restored(self) -> None:
        """Note that the taps' rules were restored. The thread that restores them calls it."""
        self._are_taps_due = True

    def act(self) -> None:
        """Do the work that is due."""
        if self._is_tick:
            self._is_tick = False
            self._ticks += 1
            self._look_around()
        if self._lost:
            self._disconnect()
        try:
            self._see_to_due()
        except (WardenError, libvirt.libvirtError) as error:
            self._lost = str(error)
            self._disconnect()

    def _look_around(self) -> None:
        """Find what no event reports: libvirt is back, or a file has changed."""
        self._admitter.look_around()
        if self._connection is None or self._enroller is None:
            # A connection would start a libvirtd that was stopped, where systemd has its socket.
            if is_locked(self._paths.libvirt_driver):
                self._connect()
            return
        policy = cache.look(self._paths)
        if policy.key != self._policy.key or not self._policy.is_settled:
            self._is_all_due = True
        self._policy = policy
        for name in self._files.changed():
            with suppress(libvirt.libvirtError):
                self._due[self._connection.lookupByName(name).UUIDString()] = None
        is_retry = self._ticks % _RETRY_TICKS == 0
        self._revoker.look_around(self._connection, again=is_retry)
        if self._ticks % _COUNT_TICKS == 0:
            spoofing.tell(self._paths, self._connection)
        if is_retry:
            self._due |= dict.fromkeys(self._enroller.unfinished)

    def _see_to_due(self) -> None:
        if self._connection is None or self._enroller is None:
            return
        while self._attached:
            uuid = next(iter(self._attached))
            del self._attached[uuid]
            self._admitter.admit(self._connection, uuid)
        if self._is_all_due:
            self._is_all_due = False
            self._due.clear()
            self._enroller.see_to_all()
            self._admitter.admit_all(self._connection)
        if self._are_taps_due:
            # A restored gate admits only the taps that are noted, and foreign ones.
            self._are_taps_due = False
            self._admitter.admit_all(self._connection)
        while self._due:
            uuid = next(iter(self._due))
            del self._due[uuid]
            self._enroller.see_to(uuid)

    def _connect(self) -> None:
        try:
            connection = libvirt.open(_URI)
            connection.setKeepAlive(_KEEPALIVE_SECONDS, _KEEPALIVE_COUNT)
            connection.registerCloseCallback(self._note_end, None)
            connection.domainEventRegisterAny(
                None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._note_event, None
            )
            connection.domainEventRegisterAny(
                None, libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, self._note_device, None
            )
            # A disk has another image, or will have it: `virsh blockcopy`, `blockcommit`.
            connection.domainEventRegisterAny(
                None, libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, self._note_device, None
            )
        except libvirt.libvirtError:
            return  # libvirt is starting or stopping: the next tick tries again
        self._connection, self._definitions = connection, Definitions(connection, _turn)
        self._enroller = Enroller(self._paths, connection, self._definitions)
        self._lost = ""
        self._files.changed()
        self._is_all_due = True
        log.event(log.Level.NOTICE, "connected", to=_URI)

    def _disconnect(self) -> None:
        if self._connection is None:
            return
        log.event(log.Level.NOTICE, "disconnected", reason=self._lost)
        self._lost = ""
        self._due.clear()
        self._attached.clear()
        connection, self._connection = self._connection, None
        self._enroller = self._definitions = None
        with suppress(libvirt.libvirtError):
            connection.close()

    def _note_end(self, _connection: libvirt.virConnect, reason: int, _opaque: object) -> None:
        self._lost = f"the connection ended ({reason})"

    def _note_device(
        self,
        _connection: libvirt.virConnect,
        domain: libvirt.virDomain,
        *_: object,
    ) -> None:
        self._attached[domain.UUIDString()] = None

    def _note_event(
        self,
        _connection: libvirt.virConnect,
        domain: libvirt.virDomain,
        event: int,
        detail: int,
        _opaque: object,
    ) -> None:
        if self._definitions is not None:
            self._definitions.note(domain.UUIDString(), event, detail)
        if (event, detail) == _ARRIVED:
            self._attached[domain.UUIDString()] = None
        if event not in _WHILE_IT_STARTS:
            self._due[domain.UUIDString()] = None


def _turn(milliseconds: int) -> None:
    """Run libvirt's event loop once, for so long at the most."""
    timer = libvirt.virEventAddTimeout(milliseconds, lambda *_: None, None)
    try:
        libvirt.virEventRunDefaultImpl()
    finally:
        libvirt.virEventRemoveTimeout(timer)

# SPDX-License-Identifier: GPL-2.0-or-later
"""What libvirt tells of its domains, as it tells it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import libvirt

_SECONDS = 60
_POLL_MS = 50


class Events:
    """The lifecycle events that came, in their order."""

    def __init__(self) -> None:
        self._came: queue.Queue[tuple[str, int]] = queue.Queue()

    def note(
        self, _connection: object, domain: libvirt.virDomain, event: int, *_more: object
    ) -> None:
        """For libvirt's event loop."""
        self._came.put((domain.name(), event))

    def wait_for(self, name: str, event: int) -> None:
        """Take events until this one (VIR_DOMAIN_EVENT_…) of this domain. Raises queue.Empty."""
        while self._came.get(timeout=_SECONDS) != (name, event):
            pass


@contextmanager
def lifecycle_events() -> Iterator[Events]:
    """Listen to libvirt; what happens after this yields is heard."""
    libvirt.virEventRegisterDefaultImpl()
    events, ended = Events(), threading.Event()

    def loop() -> None:
        while not ended.is_set():
            libvirt.virEventRunDefaultImpl()

    timer = libvirt.virEventAddTimeout(_POLL_MS, lambda *_: None, None)
    thread = threading.Thread(target=loop)
    connection = libvirt.open("qemu:///system")
    heard = connection.domainEventRegisterAny(
        None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, events.note, None
    )
    thread.start()
    try:
        yield events
    finally:
        connection.domainEventDeregisterAny(heard)
        connection.close()
        ended.set()
        thread.join()
        libvirt.virEventRemoveTimeout(timer)

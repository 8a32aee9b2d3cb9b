# SPDX-License-Identifier: GPL-2.0-or-later
"""Has libvirt keep another XML of a domain, and hears what others did to it meanwhile.

libvirt has no "define this if nobody changed it". Between a look at the XML and its definition,
somebody else may define or undefine the domain. Its events tell that, in order, afterwards.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from enum import Enum

import libvirt

from virtwarden import log
from virtwarden.domain.model import read
from virtwarden.errors import HostError
from virtwarden.libvirtd.connection import define, inactive_xml

_DEFINED, _UNDEFINED = libvirt.VIR_DOMAIN_EVENT_DEFINED, libvirt.VIR_DOMAIN_EVENT_UNDEFINED
_ADDED = libvirt.VIR_DOMAIN_EVENT_DEFINED_ADDED
# How long to wait for libvirt's event about our own definition, and for others just before it.
_PATIENCE_SECONDS = 2.0
_QUIET_SECONDS = 0.02
# To undefine a domain that somebody else has just defined anew would be worse than to wait.
_SURE_SECONDS = 0.5


class Outcome(Enum):
    """What became of a definition."""

    LEFT = "left"
    """libvirt has that XML already, or somebody else has just defined the domain."""
    DONE = "done"
    TAKEN_BACK = "taken back"
    """Somebody undefined the domain meanwhile; it is undefined again."""


class Definitions:
    """The domains that the service defines, over one connection.

    `turn` runs libvirt's event loop once, for so many milliseconds at the most.
    """

    def __init__(self, connection: libvirt.virConnect, turn: Callable[[int], None]) -> None:
        self._connection = connection
        self._turn = turn
        self._uuid = ""
        self._heard: list[int] = []
        self._made: dict[str, bytes] = {}
        self._altered: dict[str, bytes] = {}

    def note(self, uuid: str, event: int, detail: int) -> None:
        """Note an event of libvirt's."""
        if uuid != self._uuid or event not in (_DEFINED, _UNDEFINED):
            return
        # The domain was there when we looked. That it was added, we hear late.
        if self._heard or (event, detail) != (_DEFINED, _ADDED):
            self._heard.append(event)

    def forget(self) -> None:
        """Look again at what libvirt made of each domain."""
        self._made.clear()

    def is_made(self, uuid: str, xml: bytes) -> bool:
        """Whether this is what libvirt made of our own definition."""
        return self._made.get(uuid) == _digest(xml)

    def replace(self, domain: libvirt.virDomain, xml: bytes, wanted: bytes) -> Outcome:
        """Have libvirt keep `wanted` instead of `xml`.

        Raises HostError where libvirt does not take it, or alters it each time.
        """
        if read(wanted) == read(xml):
            return Outcome.LEFT
        uuid, name = domain.UUIDString(), domain.name()
        self._uuid, self._heard = uuid, []
        try:
            if inactive_xml(domain) != xml:
                return Outcome.LEFT
            define(self._connection, wanted)
            self._listen(_QUIET_SECONDS)
            if self._was_undefined():
                self._listen(_SURE_SECONDS)
        finally:
            self._uuid = ""
        made = inactive_xml(domain)
        if self._was_undefined() and read(made).is_same_as(read(wanted)):
            domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)
            return Outcome.TAKEN_BACK
        if self._heard.count(_DEFINED) > 1:
            log.event(log.Level.ERROR, "overwritten", domain=name, uuid=uuid)
        return Outcome.DONE if self._is_kept(uuid, made, wanted) else Outcome.LEFT

    def _listen(self, silence: float) -> None:
        """Hear what happened until our own definition: libvirt tells of that last.

        That has happened when libvirt tells nothing more of this domain for so many seconds. What
        it tells of others ends a turn, but no silence.
        """
        now = time.monotonic()
        give_up, quiet = now + _PATIENCE_SECONDS, now + silence
        while now < give_up and (now < quiet or self._heard[-1:] != [_DEFINED]):
            heard = len(self._heard)
            self._turn(int(silence * 1000))
            now = time.monotonic()
            if len(self._heard) != heard:
                quiet = now + silence

    def _was_undefined(self) -> bool:
        """Whether the last thing before our own definition was that somebody undefined it."""
        return self._heard[-2:] == [_UNDEFINED, _DEFINED]

    def _is_kept(self, uuid: str, made: bytes, wanted: bytes) -> bool:
        """Remember what libvirt made of it, but nothing that somebody else defined since.

        What differs twice in the same way is libvirt's doing: nobody else comes in between twice.
        """
        digest = _digest(made)
        if read(made).is_same_as(read(wanted)):
            self._made[uuid] = digest
            self._altered.pop(uuid, None)
            return True
        if self._altered.get(uuid) != digest:
            self._altered[uuid] = digest
            return False
        self._made[uuid] = digest
        raise HostError(
            "libvirt changes what enrolment writes into its XML",
            fix=f"see what differs: virsh dumpxml --inactive {uuid}",
        )


def _digest(xml: bytes) -> bytes:
    return hashlib.sha256(xml).digest()

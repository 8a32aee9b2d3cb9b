# SPDX-License-Identifier: GPL-2.0-or-later
"""The wire from a running VM's tap to a neighbour on its bridge."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.host.frames import BROADCAST, ETHERTYPE_EXPERIMENT, ethernet
from tests.host.libvirt import Libvirt
from tests.host.network import Sniffer, neighbour
from tests.host.tap import inject


def plain(src: str, *, dst: str = BROADCAST, text: bytes = b"hello") -> bytes:
    """A frame that says nothing but where it comes from and goes to."""
    return ethernet(src, dst, ETHERTYPE_EXPERIMENT, text)


@dataclass(frozen=True)
class Wire:
    """What the guest with this MAC sends, and what of it a neighbour gets."""

    tap: str
    mac: str
    neighbour: Sniffer
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def passes(self, *frames: bytes) -> list[bytes]:
        """Send frames as though the guest had; those that arrived.

        An honest frame is sent last: where it arrives, the others had all the time they need.
        """
        number = next(self._numbers)
        begin, end = b"begin %d of %s" % (number, self.mac.encode()), b"end %d" % number
        inject(self.tap, plain(self.mac, text=begin), *frames, plain(self.mac, text=end))
        self.neighbour.frames_until(begin)
        arrived = self.neighbour.frames_until(end)
        return [frame for frame in frames if frame in arrived]


@contextmanager
def wire(libvirt: Libvirt, name: str, mac: str, bridge: str) -> Iterator[Wire]:
    """The wire of a running domain's only NIC, which must have two queues."""
    with neighbour(bridge) as sniffer:
        yield Wire(tap_of(libvirt, name), mac, sniffer)


def tap_of(libvirt: Libvirt, name: str) -> str:
    """The tap that libvirt made for a running domain's first NIC."""
    return libvirt.virsh("domiflist", name).stdout.split()[0]

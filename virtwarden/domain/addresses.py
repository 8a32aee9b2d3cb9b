# SPDX-License-Identifier: GPL-2.0-or-later
"""The addresses by which a domain's XML names devices of the host."""

from __future__ import annotations

from dataclasses import dataclass

from virtwarden.domain.xpath import text


@dataclass(frozen=True)
class PciAddress:
    """`<address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>`: a PCI device."""

    domain: str = text("@domain")
    bus: str = text("@bus")
    slot: str = text("@slot")
    function: str = text("@function")

    def __str__(self) -> str:
        """`0000:01:00.0`, as QEMU's command line has it; empty where it is no address."""
        try:
            parts = [int(part or "0", 0) for part in (self.domain, self.bus, self.slot)]
            return "{:04x}:{:02x}:{:02x}.{:x}".format(*parts, int(self.function or "0", 0))
        except ValueError:
            return ""


@dataclass(frozen=True)
class UsbAddress:
    """`<address bus='1' device='4'/>`: a USB device."""

    bus: str = text("@bus")
    device: str = text("@device")

    def __str__(self) -> str:
        """Both numbers; empty where it is no address."""
        try:
            return f"{int(self.bus, 0)} {int(self.device, 0)}"
        except ValueError:
            return ""

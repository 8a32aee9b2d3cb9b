# SPDX-License-Identifier: GPL-2.0-or-later
"""SCSI devices of this host, as the kernel lists them (sysfs)."""

from __future__ import annotations

import os
import re
from pathlib import Path

DEVICES = Path("/sys/bus/scsi/devices")
_ADAPTER = re.compile(r"scsi_host(\d+)")


def generic(adapter: str, bus: str, target: str, unit: str, devices: Path = DEVICES) -> str:
    """The device by which commands go to a SCSI device, such as /dev/sg0; empty if it has none.

    libvirt opens this one for `<hostdev type='scsi'>` (virSCSIDeviceGetSgName in its virscsi.c).
    """
    number = _ADAPTER.fullmatch(adapter)
    if number is None or not all(part.isdecimal() for part in (bus, target, unit)):
        return ""
    place = devices / ":".join([number[1], *(str(int(part)) for part in (bus, target, unit))])
    try:
        names = os.listdir(place / "scsi_generic")  # noqa: PTH208
    except OSError:
        return ""
    return f"/dev/{names[0]}" if names else ""

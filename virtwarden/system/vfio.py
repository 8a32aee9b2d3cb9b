# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices of this host that QEMU drives itself, as the kernel lists them (sysfs, VFIO)."""

from __future__ import annotations

from pathlib import Path

DEVICES = (Path("/sys/bus/pci/devices"), Path("/sys/bus/mdev/devices"))


def group(name: str, devices: tuple[Path, ...] = DEVICES) -> str:
    """The node of the group that a device is in, such as /dev/vfio/7; empty if it is in none.

    A PCI device is named as lspci(8) does with its domain, a mediated one by its UUID.
    """
    if not name or "/" in name or name in (".", ".."):
        return ""
    for directory in devices:
        try:
            return f"/dev/vfio/{(directory / name / 'iommu_group').readlink().name}"
        except OSError:
            continue
    return ""

# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs whose disks lie on other images."""

from __future__ import annotations

from pathlib import Path

from tests.host.domain import Disk, domain_xml
from tests.host.images import qcow2
from tests.libvirt.warden import ENFORCING, Warden, set_policy


def overlaid(warden: Warden, images: Path) -> tuple[Path, Path]:
    """A running VM whose disk has an overlay; both images."""
    set_policy(f'{ENFORCING}[landlock]\ndirectories = ["{images}"]\n')
    disk, overlay = qcow2(images / "web01.qcow2"), images / "overlay.qcow2"
    warden.started("web01", disks=[Disk(disk)])
    warden.overlay("web01", overlay)
    return disk, overlay


def naming_its_base(name: str, disk: Disk, base: Path) -> str:
    """The XML of a domain that says itself on what its disk is based."""
    chain = (
        f"<backingStore type='file'><format type='qcow2'/><source file='{base}'/>"
        "<backingStore/></backingStore>"
    )
    target = '<target dev="vda"'
    return domain_xml(name, disks=[disk]).replace(target, f"{chain}{target}")

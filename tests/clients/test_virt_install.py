# SPDX-License-Identifier: GPL-2.0-or-later
"""virt-install with what it makes by itself; tests/libvirt/test_virt_install.py has its phases."""

from __future__ import annotations

import os
from pathlib import Path

from tests.clients.cells import in_its_cell
from tests.host.command import run
from tests.host.images import qcow2
from tests.host.service import Service
from tests.libvirt.warden import Warden

# virt-install chooses a display only where it finds somebody's desktop; no window opens.
_DESKTOP = {**os.environ, "DISPLAY": ":99"}
_COMMON = (
    *("--virt-type", "qemu", "--memory", "64", "--osinfo", "detect=off,require=off"),
    *("--network", "none", "--noautoconsole"),
)


def virt_install(*options: str, environment: dict[str, str] | None = None) -> None:
    """Make web01."""
    run("virt-install", "--name", "web01", *_COMMON, *options, environment=environment)


def test_a_new_disk_and_the_default_graphics(
    warden: Warden, service: Service, images: Path
) -> None:
    disk = f"{images}/web01.qcow2,size=1"
    virt_install("--disk", disk, "--import", environment=_DESKTOP)
    assert "<graphics type='spice'" in warden.libvirt.xml("web01")
    in_its_cell(warden, "web01")
    warden.libvirt.destroy("web01")
    warden.libvirt.start("web01")
    in_its_cell(warden, "web01")


def test_cloud_init(warden: Warden, service: Service, images: Path) -> None:
    """The first boot has an ISO that virt-install makes and deletes; the next has none."""
    disk = qcow2(images / "web01.qcow2")
    user_data = images / "user-data"
    user_data.write_text("#cloud-config\nhostname: web01\n")
    virt_install("--disk", str(disk), "--import", "--cloud-init", f"user-data={user_data}")
    assert "cloudinit.iso" in warden.libvirt.xml("web01")
    in_its_cell(warden, "web01")
    warden.libvirt.destroy("web01")
    warden.libvirt.start("web01")
    assert "cloudinit.iso" not in warden.libvirt.xml("web01")
    in_its_cell(warden, "web01")

# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM whose disk got an overlay, as each backup by snapshot does, can merge the two again."""

from __future__ import annotations

import os
from pathlib import Path

from tests.host.domain import Disk
from tests.host.images import qcow2
from tests.host.service import service
from tests.host.syslog import Syslog
from tests.libvirt.overlays import naming_its_base, overlaid
from tests.libvirt.warden import Warden, as_user, owner


def _merge(warden: Warden) -> None:
    job = ("--active", "--pivot", "--wait", "--timeout", "30")
    warden.libvirt.virsh("blockcommit", "web01", "vda", *job)


def test_the_overlay_is_merged_after_a_stop_and_a_start(warden: Warden, images: Path) -> None:
    disk, overlay = overlaid(warden, images)
    warden.libvirt.destroy("web01")
    warden.command("enrol", "web01")
    warden.libvirt.start("web01")
    assert warden.status("web01")["breaches"] == []
    assert as_user("vmw-web01", lambda: os.open(disk, os.O_RDWR)) == ""
    _merge(warden)
    assert str(overlay) not in warden.libvirt.xml("web01")
    warden.libvirt.destroy("web01")
    warden.command("enrol", "web01")
    warden.libvirt.start("web01")
    assert warden.status("web01")["breaches"] == []
    warden.libvirt.destroy("web01")
    assert owner(disk).startswith("0:0")


def test_and_while_the_service_enrols_it_again_by_itself(
    warden: Warden, images: Path, syslog: Syslog
) -> None:
    with service():
        syslog.wait_for("event=all-seen-to", timeout=20)
        overlaid(warden, images)
        warden.libvirt.destroy("web01")
        warden.libvirt.start("web01")
        _merge(warden)
        warden.libvirt.destroy("web01")
        warden.libvirt.start("web01")
        warden.libvirt.destroy("web01")


def test_a_layer_that_another_vm_uses_too_stays_shared(warden: Warden, images: Path) -> None:
    disk, _ = overlaid(warden, images)
    warden.libvirt.destroy("web01")
    other = qcow2(images / "db01.qcow2", backing=disk, backing_format="qcow2")
    spelled = Disk(other)
    warden.libvirt.define(naming_its_base("db01", spelled, disk))
    warden.command("enrol", "web01")
    warden.libvirt.start("web01")
    assert disk.stat().st_uid == 0
    assert as_user("vmw-web01", lambda: os.open(disk, os.O_RDWR)) == "PermissionError"
    warden.libvirt.destroy("web01")


def test_another_vms_disk_never_becomes_ones_own_layer(warden: Warden, images: Path) -> None:
    disk, _ = overlaid(warden, images)
    warden.libvirt.destroy("web01")
    other = qcow2(images / "db01.qcow2", backing=disk, backing_format="qcow2")
    warden.libvirt.define(naming_its_base("db01", Disk(other), disk))
    warden.command("enrol", "db01")
    warden.libvirt.start("db01")
    assert as_user("vmw-db01", lambda: os.open(disk, os.O_RDWR)) == "PermissionError"
    warden.libvirt.destroy("db01")

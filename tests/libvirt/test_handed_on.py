# SPDX-License-Identifier: GPL-2.0-or-later
"""Who opened a VM's file before its start does not keep it: chown takes no descriptor back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.host.accomplice import NOBODY, handed
from tests.host.domain import Disk
from tests.host.images import qcow2, raw
from tests.host.loops import loop
from tests.host.syslog import Syslog
from tests.libvirt.warden import ENFORCING, Warden, set_policy
from virtwarden.system import users


def uid_of(name: str) -> int:
    account = users.account(f"vmw-{name}")
    assert account is not None
    return account.uid


def test_a_disk_that_a_guest_handed_to_another_process_is_not_used_again(
    warden: Warden, images: Path
) -> None:
    disk = raw(images / "web01.raw")
    warden.started("web01", disks=[Disk(disk, format="raw")])
    with handed(disk, uid_of("web01")) as other:
        warden.libvirt.destroy("web01")
        line = warden.refusal("web01")
        assert f"pid {other.pid}, uid {NOBODY}" in line
        assert f"kill {other.pid}" in line
        assert disk.stat().st_uid == 0
    warden.libvirt.start("web01")
    assert warden.status("web01")["breaches"] == []


def test_nor_one_that_is_only_read_there(warden: Warden, images: Path) -> None:
    disk = raw(images / "web01.raw")
    warden.started("web01", disks=[Disk(disk, format="raw")])
    with handed(disk, uid_of("web01"), os.O_RDONLY) as other:
        warden.libvirt.destroy("web01")
        assert f"pid {other.pid}, uid {NOBODY}" in warden.refusal("web01")


def test_nor_does_another_vm_get_it(warden: Warden, images: Path) -> None:
    disk = Disk(qcow2(images / "web01.qcow2"))
    warden.started("web01", disks=[disk])
    with handed(Path(disk.path), uid_of("web01")) as other:
        warden.libvirt.destroy("web01")
        warden.enrolled("db01", disks=[disk])
        assert f"pid {other.pid}, uid {NOBODY}" in warden.refusal("db01")


def test_who_read_a_disk_while_everybody_could_does_not_read_what_its_vm_writes(
    warden: Warden, images: Path
) -> None:
    disk = raw(images / "web01.raw", mode=0o644)
    with handed(disk, NOBODY, os.O_RDONLY) as other:
        warden.enrolled("web01", disks=[Disk(disk, format="raw")])
        assert f"pid {other.pid}, uid {NOBODY}" in warden.refusal("web01")


def test_a_descriptor_that_no_process_shows_counts_too(warden: Warden, images: Path) -> None:
    disk = raw(images / "web01.raw")
    warden.started("web01", disks=[Disk(disk, format="raw")])
    with handed(disk, uid_of("web01"), parked=True):
        warden.libvirt.destroy("web01")
        line = warden.refusal("web01")
        assert "no process shows it" in line
        assert "cp --sparse=always" in line


def test_a_shared_base_that_somebody_could_still_write_is_refused(
    warden: Warden, images: Path
) -> None:
    base = raw(images / "base.raw")
    warden.started("web01", disks=[Disk(base, format="raw")])
    with handed(base, uid_of("web01")) as other:
        warden.libvirt.destroy("web01")
        medium = Disk(base, target="sda", format="raw", readonly=True, device="cdrom")
        warden.enrolled("db01", disks=[Disk(qcow2(images / "own.qcow2")), medium])
        assert f"pid {other.pid}, uid {NOBODY}" in warden.refusal("db01")


def test_who_only_reads_a_shared_base_keeps_no_vm_from_its_start(
    warden: Warden, images: Path
) -> None:
    medium = raw(images / "one.iso", mode=0o444)
    drive = Disk(medium, target="sda", format="raw", readonly=True, device="cdrom")
    with handed(medium, NOBODY, os.O_RDONLY):
        warden.started("web01", disks=[drive])
        warden.started("db01", disks=[drive])


def test_a_backup_by_root_keeps_no_vm_from_its_start(warden: Warden, images: Path) -> None:
    disk = raw(images / "web01.raw")
    with disk.open("rb"):
        warden.started("web01", disks=[Disk(disk, format="raw")])


def test_a_block_device_counts_as_far_as_a_process_shows_it(warden: Warden, images: Path) -> None:
    file = raw(images / "disk.img", size="64M")
    with loop(file) as device:
        disk = Disk(device, kind="block", format="raw")
        warden.started("web01", disks=[disk])
        with handed(device, uid_of("web01")) as other:
            warden.libvirt.destroy("web01")
            assert f"pid {other.pid}, uid {NOBODY}" in warden.refusal("web01")
        warden.libvirt.start("web01")
        warden.libvirt.destroy("web01")


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_vm_that_is_killed_starts_again_at_once(warden: Warden, images: Path, form: str) -> None:
    disk = (raw if form == "raw" else qcow2)(images / f"web01.{form}")
    warden.started("web01", disks=[Disk(disk, format=form)])
    for _ in range(3):
        warden.libvirt.destroy("web01")
        warden.libvirt.start("web01")


def test_where_it_is_only_logged_the_vm_starts_with_all_its_files(
    warden: Warden, images: Path, syslog: Syslog
) -> None:
    medium = raw(images / "one.iso", mode=0o400)
    disk, second = raw(images / "web01.raw"), raw(images / "second.raw")
    set_policy(f'mode = "permissive"\n{ENFORCING}')
    drive = Disk(medium, target="sda", format="raw", readonly=True, device="cdrom")
    disks = [Disk(disk, format="raw"), Disk(second, target="vdb", format="raw"), drive]
    warden.enrolled("web01", disks=disks)
    with handed(disk, 0) as other:
        warden.libvirt.start("web01")
        assert f"pid {other.pid}, uid {NOBODY}" in syslog.wait_for("event=would-refuse")
    assert warden.status("web01")["breaches"] == []

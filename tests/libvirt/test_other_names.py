# SPDX-License-Identifier: GPL-2.0-or-later
"""What is kept from a VM is kept under every other name of it too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.host.command import run
from tests.host.domain import Disk, domain_xml
from tests.host.images import qcow2, raw
from tests.host.loops import loop, node
from tests.libvirt.overlays import naming_its_base, overlaid
from tests.libvirt.test_headers import enrol, forge, reaches
from tests.libvirt.warden import Warden, as_user


def new_image(warden: Warden, images: Path, base: Path | str, form: str = "raw") -> Path:
    disk = qcow2(images / "web01.qcow2")
    forge(disk, base, form)
    warden.libvirt.define(domain_xml("web01", disks=[Disk(disk)]))
    return disk


def give_to_another(warden: Warden, disk: Disk, *, managed: bool) -> None:
    """Make it the disk of db01, which ran as its own user, or never did."""
    if managed:
        warden.started("db01", disks=[disk])
        warden.libvirt.destroy("db01")
    else:
        warden.libvirt.define(domain_xml("db01", disks=[disk]))


def test_a_header_gets_no_device_that_the_host_uses(warden: Warden, images: Path) -> None:
    file = raw(images / "host.img", size="64M")
    with loop(file) as device:
        held = os.open(device, os.O_RDONLY | os.O_EXCL)
        try:
            new_image(warden, images, device)
            enrol(warden)
            assert not reaches(warden, device)
        finally:
            os.close(held)


def test_nor_a_disk_that_its_domain_names_by_a_symlink(warden: Warden, images: Path) -> None:
    theirs = qcow2(images / "theirs.qcow2")
    link = images / "db01.qcow2"
    link.symlink_to(theirs)
    warden.libvirt.define(domain_xml("db01", disks=[Disk(link)]))
    new_image(warden, images, theirs, "qcow2")
    enrol(warden)
    assert not reaches(warden, theirs)


def test_nor_one_with_a_quote_in_its_name(warden: Warden, images: Path) -> None:
    theirs = qcow2(images / "it's.qcow2")
    warden.libvirt.define(domain_xml("db01", disks=[Disk(theirs)]))
    new_image(warden, images, theirs, "qcow2")
    enrol(warden)
    assert not reaches(warden, theirs)


@pytest.mark.parametrize("managed", [False, True])
def test_nor_a_device_by_another_name(warden: Warden, images: Path, managed: bool) -> None:
    file = raw(images / "lun.img", size="64M")
    with loop(file) as device:
        by_id = Path(f"/dev/{images.name[5:40]}")
        by_id.symlink_to(device)
        try:
            disk = Disk(by_id, kind="block", format="raw")
            give_to_another(warden, disk, managed=managed)
            new_image(warden, images, device)
            enrol(warden)
            assert not reaches(warden, device)
        finally:
            warden.libvirt.remove_domains()
            by_id.unlink()


@pytest.mark.parametrize("managed", [False, True])
def test_nor_by_a_loop_device_over_anothers_disk(
    warden: Warden, images: Path, managed: bool
) -> None:
    file = raw(images / "db01.img", size="64M")
    with loop(file) as device:
        try:
            disk = Disk(file, format="raw")
            give_to_another(warden, disk, managed=managed)
            new_image(warden, images, device)
            enrol(warden)
            assert not reaches(warden, device)
        finally:
            warden.libvirt.remove_domains()


@pytest.mark.parametrize("managed", [False, True])
def test_nor_by_a_partition_of_anothers_disk(warden: Warden, images: Path, managed: bool) -> None:
    file = raw(images / "db01.img", size="64M")
    with loop(file) as device:
        try:
            disk = Disk(device, kind="block", format="raw")
            give_to_another(warden, disk, managed=managed)
            part = node(f"{device.name}p1")
            new_image(warden, images, part)
            enrol(warden)
            assert not reaches(warden, part)
        finally:
            warden.libvirt.remove_domains()


def test_the_header_on_a_device_that_a_vm_wrote_is_not_believed_under_another_name(
    warden: Warden, images: Path
) -> None:
    theirs = qcow2(images / "db01.qcow2")
    warden.started("db01", disks=[Disk(theirs)])
    warden.libvirt.destroy("db01")
    file = raw(images / "lun.img", size="64M")
    with loop(file) as device:
        secret = raw(images / "backup.img")
        run("qemu-img", "create", "-q", "-f", "qcow2", str(device), "16M")
        by_id = Path(f"/dev/{images.name[5:40]}")
        by_id.symlink_to(device)
        try:
            warden.started("web01", disks=[Disk(by_id, kind="block")])
            warden.libvirt.destroy("web01")
            warden.command("unenrol", "web01")
            warden.libvirt.undefine("web01")
            forge(device, secret, "raw")
            warden.libvirt.define(domain_xml("web01", disks=[Disk(device, kind="block")]))
            enrol(warden)
            assert not reaches(warden, secret)
        finally:
            warden.libvirt.remove_domains()
            by_id.unlink()


def test_a_former_disk_that_became_anothers_base_is_not_given_back(
    warden: Warden, images: Path
) -> None:
    """web01's disk becomes a golden image while web01 goes on on an overlay."""
    golden, _ = overlaid(warden, images)
    warden.libvirt.destroy("web01")
    warden.command("enrol", "web01")
    other = qcow2(images / "db01.qcow2", backing=golden)
    warden.libvirt.define(naming_its_base("db01", Disk(other), golden))
    warden.command("enrol", "db01")
    warden.libvirt.start("db01")
    warden.libvirt.destroy("db01")
    warden.libvirt.virsh("start", "web01", check=False)
    wrote = as_user("vmw-web01", lambda: os.close(os.open(golden, os.O_RDWR)))
    assert wrote != "", "web01 writes the base that db01 reads"


def test_a_symlink_that_a_user_made_in_dev_shm_is_not_followed(
    warden: Warden, images: Path
) -> None:
    """Whoever made it can have it lead elsewhere once it was reviewed."""
    disk = raw(images / "web01.raw")
    link = Path("/dev/shm/web01.raw")
    warden.started("app01")
    assert as_user("vmw-app01", lambda: link.symlink_to("/dev/roots.raw")) == ""
    Path("/dev/roots.raw").write_bytes(disk.read_bytes())
    warden.enrolled("web01", disks=[Disk(link, format="raw")])
    line = warden.refusal("web01")
    assert "/dev/shm" in line
    assert Path("/dev/roots.raw").stat().st_uid == 0

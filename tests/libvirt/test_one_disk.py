# SPDX-License-Identifier: GPL-2.0-or-later
"""One disk under two names: two VMs that would write it do not both start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.host.command import run
from tests.host.domain import Disk
from tests.host.images import raw
from tests.host.loops import loop, node
from tests.libvirt.warden import PATHS, Warden


@pytest.fixture
def image(images: Path) -> Path:
    file = raw(images / "disk.img")
    os.truncate(file, 64 << 20)
    return file


def _block(device: Path) -> Disk:
    return Disk(device, kind="block", format="raw")


def test_a_loop_device_and_its_file_are_one_disk(warden: Warden, image: Path) -> None:
    with loop(image) as device:
        warden.enrolled("file", disks=[Disk(image, format="raw")])
        warden.enrolled("loop", disks=[_block(device)])
        for first, second in (("file", "loop"), ("loop", "file")):
            warden.libvirt.start(first)
            line = warden.refusal(second)
            assert f"running domain {first} also uses" in line
            assert "where the same data lies" in line
            warden.libvirt.destroy(first)
    assert not list(PATHS.claims.iterdir())


def test_a_disk_and_its_partition_are_one_disk_and_two_partitions_are_not(
    warden: Warden, image: Path
) -> None:
    with loop(image) as device:
        parts = [node(f"{device.name}p{number}") for number in (1, 2)]
        warden.enrolled("whole", disks=[_block(device)])
        warden.enrolled("one", disks=[_block(parts[0])])
        warden.enrolled("two", disks=[_block(parts[1])])
        warden.libvirt.start("one")
        warden.libvirt.start("two")
        assert f"also uses {device}p" in warden.refusal("whole")
        warden.libvirt.destroy("one")
        assert f"also uses {parts[1]}" in warden.refusal("whole")
        warden.libvirt.destroy("two")
        warden.libvirt.start("whole")
        assert f"also uses {device}" in warden.refusal("two")
        warden.libvirt.destroy("whole")
    assert not list(PATHS.claims.iterdir())


def test_a_device_that_the_host_has_mounted_is_refused(
    warden: Warden, image: Path, tmp_path: Path
) -> None:
    with loop(image) as device:
        part = node(f"{device.name}p1")
        run("mkfs.ext4", "-q", str(part))
        warden.enrolled("part", disks=[_block(part)])
        warden.enrolled("whole", disks=[_block(device)])
        run("mount", str(part), str(tmp_path))
        try:
            for name in ("part", "whole"):
                line = warden.refusal(name)
                assert "the host itself uses it" in line
                assert "lsblk" in line
        finally:
            run("umount", str(tmp_path))
        warden.libvirt.start("part")
        warden.libvirt.destroy("part")


def test_one_file_under_two_mounts_is_one_disk(warden: Warden, image: Path, images: Path) -> None:
    other = images / "again"
    other.mkdir()
    (images / "here").mkdir()
    moved = image.rename(images / "here" / "disk.img")
    run("mount", "--bind", str(moved.parent), str(other))
    try:
        warden.started("web01", disks=[Disk(moved, format="raw")])
        warden.enrolled("db01", disks=[Disk(other / "disk.img", format="raw")])
        assert "running domain web01 also uses it" in warden.refusal("db01")
        warden.libvirt.destroy("web01")
    finally:
        run("umount", str(other))


def test_a_file_whose_loop_device_the_host_uses_is_refused(warden: Warden, images: Path) -> None:
    file = raw(images / "web01.img", size="64M")
    with loop(file) as device:
        held = os.open(device, os.O_RDONLY | os.O_EXCL)
        try:
            warden.enrolled("web01", disks=[Disk(file, format="raw")])
            assert f"the host itself uses {device}, a loop device over it" in warden.refusal(
                "web01"
            )
        finally:
            os.close(held)
            warden.libvirt.remove_domains()


def test_a_file_of_an_overlay_and_of_its_upper_layer_is_one_disk(
    warden: Warden,
) -> None:
    top = Path("/var/lib/libvirt/overlay")
    top.mkdir()
    run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", str(top))
    for name in ("lower", "upper", "work", "merged"):
        (top / name).mkdir()
    layers = f"lowerdir={top}/lower,upperdir={top}/upper,workdir={top}/work"
    run("mount", "-t", "overlay", "-o", layers, "overlay", str(top / "merged"))
    try:
        merged = raw(top / "merged" / "d.img")
        warden.started("web01", disks=[Disk(merged, format="raw")])
        warden.enrolled("db01", disks=[Disk(top / "upper" / "d.img", format="raw")])
        assert "another running VM" in warden.refusal("db01")
    finally:
        warden.libvirt.remove_domains()
        run("umount", str(top / "merged"))
        run("umount", str(top))
        top.rmdir()

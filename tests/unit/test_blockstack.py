# SPDX-License-Identifier: GPL-2.0-or-later
"""On what a block device lies, in a sysfs that is made of files."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from virtwarden.system import blockstack
from virtwarden.system.blockstack import Identity, below
from virtwarden.system.files import Inode

Below = Callable[[int, int], tuple[Identity, ...]]


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    made = tmp_path / "dev" / "block"
    made.mkdir(parents=True)
    return made


def device(devices: Path, name: str, number: str, *slaves: str, partition: bool = False) -> None:
    """A device below /sys/devices; the slaves are names of others."""
    place = devices.parent.parent / "devices" / name
    (place / "slaves").mkdir(parents=True)
    (place / "dev").write_text(f"{number}\n")
    for slave in slaves:
        (place / "slaves" / slave).symlink_to(devices.parent.parent / "devices" / slave)
    if partition:
        (place / "partition").write_text("1\n")
    (devices / number).symlink_to(place)


@pytest.fixture
def under(devices: Path) -> Below:
    def answer(major: int, minor: int) -> tuple[Identity, ...]:
        number = os.makedev(major, minor)
        return below(Inode("/dev/x", 5, 9, stat.S_IFBLK, 0, 0, 1, rdev=number), devices)

    return answer


def whole(major: int, minor: int) -> Identity:
    return os.makedev(major, minor), 0


def test_a_disk_lies_on_nothing(devices: Path, under: Below) -> None:
    device(devices, "sda", "8:0")
    assert under(8, 0) == ()


def test_a_partition_lies_on_its_disk(devices: Path, under: Below) -> None:
    device(devices, "sda", "8:0")
    device(devices, "sda/sda1", "8:1", partition=True)
    assert under(8, 1) == (whole(8, 0),)


def test_a_volume_on_a_raid_of_partitions_lies_on_all_of_them(devices: Path, under: Below) -> None:
    for disk, number in (("sda", 0), ("sdb", 16)):
        device(devices, disk, f"8:{number}")
        device(devices, f"{disk}/{disk}1", f"8:{number + 1}", partition=True)
    device(devices, "md0", "9:0")
    for disk in ("sda", "sdb"):
        slave = devices.parent.parent / "devices" / disk / f"{disk}1"
        (devices / "9:0" / "slaves" / slave.name).symlink_to(slave)
    device(devices, "dm-0", "253:0", "md0")
    assert set(under(253, 0)) == {
        whole(9, 0),
        *(whole(8, number) for number in (0, 1, 16, 17)),
    }


def test_two_volumes_of_one_group_do_not_lie_on_each_other(devices: Path, under: Below) -> None:
    device(devices, "sda", "8:0")
    device(devices, "dm-0", "253:0", "sda")
    device(devices, "dm-1", "253:1", "sda")
    assert whole(253, 1) not in under(253, 0)


def test_devices_in_a_circle_end(devices: Path, under: Below) -> None:
    device(devices, "dm-0", "253:0")
    device(devices, "dm-1", "253:1", "dm-0")
    (devices / "253:0" / "slaves" / "dm-1").symlink_to(devices.parent.parent / "devices" / "dm-1")
    assert set(under(253, 0)) == {whole(253, 0), whole(253, 1)}


def test_a_device_that_sysfs_does_not_have_and_a_file_lie_on_nothing(
    devices: Path, under: Below
) -> None:
    assert under(8, 0) == ()
    assert below(Inode("/f", 5, 9, stat.S_IFREG, 0, 0, 1), devices) == ()


@pytest.mark.parametrize(("refusals", "held"), [(0, False), (2, False), (3, True)])
def test_a_device_that_another_start_is_just_asking_about_is_not_held(
    monkeypatch: pytest.MonkeyPatch, refusals: int, held: bool
) -> None:
    answers = [OSError(errno.EBUSY, "busy")] * refusals

    def opened(*_: object) -> int:
        if answers:
            raise answers.pop()
        return os.dup(0)

    monkeypatch.setattr(blockstack.os, "open", opened)
    assert blockstack.is_held("/dev/vdb") == held

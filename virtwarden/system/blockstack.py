# SPDX-License-Identifier: GPL-2.0-or-later
"""On what a block device lies: partitions, the device mapper, RAID and loop devices, in sysfs."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import time
from contextlib import suppress
from pathlib import Path

from virtwarden.system.files import Inode

Identity = tuple[int, int]
"""A file by device and inode number, a block device by its own number and 0."""

# linux/loop.h: struct loop_info64 begins with lo_device, lo_inode and lo_rdevice; it has 232 bytes.
_LOOP_GET_STATUS64 = 0x4C05
_LOOP_INFO_BYTES = 232
_PAUSES_SECONDS = (0, 0.01, 0.05)
_BY_NUMBER = Path("/sys/dev/block")


def identity(inode: Inode) -> Identity:
    """What identifies a file or a block device, under any of its names."""
    return (inode.rdev, 0) if stat.S_ISBLK(inode.mode) else inode.identity


def identity_of(found: os.stat_result) -> Identity:
    """The same, from the result of stat(2)."""
    is_device = stat.S_ISBLK(found.st_mode)
    return (found.st_rdev, 0) if is_device else (found.st_dev, found.st_ino)


def below(inode: Inode, devices: Path = _BY_NUMBER) -> tuple[Identity, ...]:
    """Everything that a block device lies on, down to the last disk or file; empty for a file.

    A disk is below its partitions, a RAID's members are below the RAID, and a file is below its
    loop device. What the file's own file system lies on is not among it. `devices` is
    /sys/dev/block.
    """
    found: dict[Identity, None] = {}
    waiting = [inode.rdev] if stat.S_ISBLK(inode.mode) else []
    while waiting:
        for lower in _directly_below(devices, waiting.pop()):
            if lower not in found:
                found[lower] = None
                waiting += [lower[0]] if lower[1] == 0 else []
    return tuple(found)


def _directly_below(devices: Path, number: int) -> list[Identity]:
    device = devices / f"{os.major(number)}:{os.minor(number)}"
    try:
        device = device.resolve(strict=True)
    except OSError:  # it went meanwhile, or has no entry
        return []
    if (device / "partition").exists():
        return [(number_of(device.parent), 0)]
    if (device / "loop").is_dir():
        with suppress(OSError):
            return [behind_loop(device.name)]
    slaves = device / "slaves"
    return [(number_of(slave), 0) for slave in sorted(slaves.glob("*"))]


def behind_loop(name: str) -> Identity:
    """The file or device behind a loop device; loop(4). Raises OSError where it was released."""
    handle = os.open(f"/dev/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        answer = fcntl.ioctl(handle, _LOOP_GET_STATUS64, bytes(_LOOP_INFO_BYTES))
    finally:
        os.close(handle)
    device, inode, own_number = struct.unpack_from("=QQQ", answer)
    return (own_number, 0) if own_number else (device, inode)


def loops_over(file: Identity, devices: Path = Path("/sys/block")) -> list[str]:
    """The loop devices over a file."""
    found = []
    for loop in devices.glob("loop*/loop"):
        with suppress(OSError):
            if behind_loop(loop.parent.name) == file:
                found.append(f"/dev/{loop.parent.name}")
    return found


def number_of(device: Path) -> int:
    """The number of a block device, from its directory in sysfs. Raises OSError."""
    major, _, minor = (device / "dev").read_text().strip().partition(":")
    return os.makedev(int(major), int(minor))


def is_held(path: str) -> bool:
    """Whether the host itself uses a block device: mounted, as swap, or below another device.

    open(2), O_EXCL: the kernel refuses that for a device in use by the system. Another start that
    asks the same of a device that both share holds it only for an instant, so ask again. False
    where it cannot be opened at all: QEMU then says so.
    """
    return all(_is_held_now(path, after=pause) for pause in _PAUSES_SECONDS)


def _is_held_now(path: str, *, after: float) -> bool:
    time.sleep(after)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return error.errno == errno.EBUSY
    os.close(handle)
    return False

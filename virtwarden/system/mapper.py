# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's device mapper, as the kernel shows it: the maps, and the devices below each."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from virtwarden.system.files import Inode

NODES = Path("/dev/mapper")
# linux/loop.h: struct loop_info64 begins with lo_device and lo_inode, and has 232 bytes.
_LOOP_GET_STATUS64 = 0x4C05
_LOOP_INFO_BYTES = 232

Identity = tuple[int, int]
"""A file by device and inode number, a block device by its own number and 0."""


@dataclass(frozen=True)
class Map:
    """One device of the device mapper, open as /dev/mapper/NAME.

    `uuid` tells its kind: cryptsetup's begin with CRYPT- and name the type and the container.
    """

    name: str
    uuid: str
    number: int
    readonly: bool
    below: tuple[Identity, ...]

    @property
    def node(self) -> str:
        """The path that stands in a domain's XML."""
        return str(NODES / self.name)


def identity(inode: Inode) -> Identity:
    """What identifies a file or a block device, under any of its names."""
    return (inode.rdev, 0) if stat.S_ISBLK(inode.mode) else inode.identity


def identity_of(found: os.stat_result) -> Identity:
    """The same, from the result of stat(2)."""
    is_device = stat.S_ISBLK(found.st_mode)
    return (found.st_rdev, 0) if is_device else (found.st_dev, found.st_ino)


def maps(devices: Path) -> tuple[Map, ...]:
    """All maps of the host; `devices` is /sys/block."""
    return tuple(_maps(devices))


def find(devices: Path, name: str) -> Map | None:
    """The map of this name, or None."""
    return next((found for found in _maps(devices) if found.name == name), None)


def _maps(devices: Path) -> Iterator[Map]:
    for device in sorted(devices.glob("dm-*")):
        with suppress(FileNotFoundError):  # it was closed meanwhile
            yield Map(
                name=_text(device / "dm" / "name"),
                uuid=_text(device / "dm" / "uuid"),
                number=_number(device),
                readonly=_text(device / "ro") == "1",
                below=tuple(_identity(slave) for slave in sorted((device / "slaves").iterdir())),
            )


def _identity(device: Path) -> Identity:
    if (device / "loop").is_dir():
        with suppress(OSError):  # the loop device was released meanwhile
            return _behind_loop(device.name)
    return _number(device), 0


def _behind_loop(name: str) -> Identity:
    """The file behind a loop device; loop(4). Raises OSError."""
    handle = os.open(f"/dev/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        answer = fcntl.ioctl(handle, _LOOP_GET_STATUS64, bytes(_LOOP_INFO_BYTES))
    finally:
        os.close(handle)
    device, inode = struct.unpack_from("=QQ", answer)
    return device, inode


def _number(device: Path) -> int:
    major, _, minor = _text(device / "dev").partition(":")
    return os.makedev(int(major), int(minor))


def _text(path: Path) -> str:
    return path.read_text().strip()

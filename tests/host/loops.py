# SPDX-License-Identifier: GPL-2.0-or-later
"""Loop devices with partitions, for this private host, whose /dev has no nodes of them."""

from __future__ import annotations

import ctypes
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.host.command import run
from tests.host.namespace import require_private_host

# linux/blkpg.h
_BLKPG, _ADD, _DELETE = 0x1269, 1, 2
_BYTES = 16 << 20


def node(name: str) -> Path:
    """The kernel's device under its own name, which a private /dev lacks."""
    device = Path("/dev", name)
    if not device.exists():
        major, minor = Path("/sys/class/block", name, "dev").read_text().split(":")
        os.mknod(device, stat.S_IFBLK | 0o660, os.makedev(int(major), int(minor)))
    return device


@contextmanager
def loop(file: Path) -> Iterator[Path]:
    """A loop device over a file, with two partitions."""
    require_private_host()
    for found in Path("/sys/block").glob("loop*"):
        node(found.name)
    if not Path("/dev/loop-control").exists():
        os.mknod("/dev/loop-control", stat.S_IFCHR | 0o600, os.makedev(10, 237))
    device = Path(run("losetup", "--find", "--show", str(file)).stdout.strip())
    try:
        for number in (1, 2):
            _partition(device, _ADD, number)
        yield device
    finally:
        for number in (1, 2):
            with suppress(OSError):
                _partition(device, _DELETE, number)
        run("losetup", "--detach", str(device))


def _partition(device: Path, act: int, number: int) -> None:
    """Tell the kernel of a partition, as partx(8) does; this kernel may read no tables itself."""
    told = struct.pack("@qqi64s64s4x", number * _BYTES, _BYTES, number, b"", b"")
    buffer = ctypes.create_string_buffer(told)
    arguments = struct.pack("@iiiP", act, 0, len(told), ctypes.addressof(buffer))
    with device.open("rb") as opened:
        fcntl.ioctl(opened, _BLKPG, arguments)

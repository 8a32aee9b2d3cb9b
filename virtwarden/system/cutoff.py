# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes an open device of the device mapper from processes that do not let it go; dmsetup(8).

The device stays until they close it, with nothing behind it: the kernel has forgotten the key, and
every read and write fails. What was written before is written out first.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from virtwarden.errors import CommandError
from virtwarden.system import blockstack
from virtwarden.system.openers import Opener, openers
from virtwarden.system.run import run

_DMSETUP = "/usr/sbin/dmsetup"
# linux/fs.h, BLKFLSBUF: writes out what the kernel keeps of a device, and forgets it.
_FLUSH = 0x1261
_SUSPEND_SECONDS = 20


def cut_off(node: str) -> list[Opener] | None:
    """Empty /dev/mapper/NAME; the processes that still have it open.

    None where that could cost data, and nothing was done: the host itself uses the device (it is
    mounted, swap, or below another one), a process of root's has it open, or it cannot be written
    out.
    """
    name = node.rpartition("/")[2]
    with suppress(OSError, CommandError):
        handle = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
        try:
            number = os.fstat(handle).st_rdev
            found = openers(handle)
            if any(opener.uid == 0 for opener in found) or _is_the_hosts(number):
                return None
            os.fsync(handle)
            fcntl.ioctl(handle, _FLUSH)
            run(_DMSETUP, "wipe_table", name, timeout=_SUSPEND_SECONDS)
            # They may have read it into the kernel's memory again meanwhile.
            with suppress(OSError):
                fcntl.ioctl(handle, _FLUSH)
        finally:
            os.close(handle)
        run(_DMSETUP, "remove", "--deferred", name)
        return found
    return None


def _is_the_hosts(number: int) -> bool:
    """Whether the host itself uses a block device.

    O_EXCL would not tell: a process can open a device so too.
    """
    name = f"{os.major(number)}:{os.minor(number)}"
    holders = Path("/sys/dev/block", name, "holders")
    if any(holders.iterdir()) or blockstack.loops_over((number, 0)):
        return True
    return name in _mounted() or number in map(_number, _swaps())


def _mounted() -> set[str]:
    """The numbers of all devices that are mounted, in whatever mount namespace."""
    found: set[str] = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):
                lines = (process / "mountinfo").read_text().splitlines()
                found |= {line.split()[2] for line in lines}
                sources = {line.rpartition(" - ")[2].split()[1] for line in lines}
                numbers = map(_number, (each for each in sources if each.startswith("/dev/")))
                found |= {f"{os.major(each)}:{os.minor(each)}" for each in numbers}
    return found


def _swaps() -> Iterator[str]:
    for line in Path("/proc/swaps").read_text().splitlines()[1:]:
        yield line.split()[0]


def _number(path: str) -> int:
    with suppress(OSError):
        return Path(path).stat().st_rdev
    return 0

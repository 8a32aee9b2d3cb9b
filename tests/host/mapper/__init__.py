# SPDX-License-Identifier: GPL-2.0-or-later
"""A device mapper for the private host, whose kernel may have none: cryptsetup's own, in part.

All that reads a header or tries a key is done by the real cryptsetup. Only the last step, the
kernel's decryption, is not: /dev/mapper/NAME holds what the container holds behind its header.
tests/appliance has the real one.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.host.namespace import require_private_host

_CRYPTSETUP = Path("/usr/sbin/cryptsetup")
_REAL = Path("/usr/sbin/cryptsetup.real")
_BLOCK = Path("/sys/block")
_SHOWN = Path("/run/fake-sys-block")
_LOOP_CONTROL = (10, 237)
_LOOP_MAJOR = 7


@contextmanager
def device_mapper() -> Iterator[None]:
    """Have cryptsetup open and close containers in this private host, as long as this lasts."""
    require_private_host()
    shutil.copy2(_CRYPTSETUP, _REAL)
    shutil.copy(Path(__file__).with_name("cryptsetup.py"), _CRYPTSETUP)
    _CRYPTSETUP.chmod(0o755)
    _make_nodes()
    _show_block_devices()
    try:
        yield
    finally:
        subprocess.run(["umount", _BLOCK], check=True)
        _REAL.replace(_CRYPTSETUP)
        shutil.rmtree(_SHOWN)
        shutil.rmtree("/dev/mapper")


def _make_nodes() -> None:
    Path("/dev/mapper").mkdir()
    _node("loop-control", stat.S_IFCHR, _LOOP_CONTROL)
    for loop in _BLOCK.glob("loop*"):
        _node(loop.name, stat.S_IFBLK, (_LOOP_MAJOR, int(loop.name.removeprefix("loop"))))


def _node(name: str, kind: int, number: tuple[int, int]) -> None:
    path = Path("/dev", name)
    if not path.exists():
        os.mknod(path, 0o600 | kind, os.makedev(*number))


def _show_block_devices() -> None:
    """What the kernel has in /sys/block, with room for what it has not."""
    _SHOWN.mkdir()
    for device in _BLOCK.iterdir():
        (_SHOWN / device.name).symlink_to(device.resolve())
    subprocess.run(["mount", "--bind", _SHOWN, _BLOCK], check=True)

# SPDX-License-Identifier: GPL-2.0-or-later
"""What libvirt leaves in the file system, and tells nobody of."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from pathlib import Path

# struct flock of 64 bits (fcntl(2), F_GETLK): type, whence, start, length, pid
_FLOCK = struct.Struct("@hhqqi4x")
# Twice the longest tick of the clock that stamps files (CONFIG_HZ=100): what changed less than a
# tick ago can change once more without its time telling.
_TICK_NS = 20_000_000


def is_locked(file: Path) -> bool:
    """Whether a process holds a lock on a file, as libvirt's daemons do on theirs while they live.

    The lock is not taken to find out: a daemon that starts at that moment must find it free.
    """
    try:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, *_ = _FLOCK.unpack(fcntl.fcntl(handle, fcntl.F_GETLK, wanted))
        return bool(kind != fcntl.F_UNLCK)
    finally:
        os.close(handle)


class DomainFiles:
    """The files in which libvirt keeps its domains, `NAME.xml` each.

    libvirt sends no event when a device is added to a domain's next start alone (`virsh
    attach-disk --config`): that shows nowhere else.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._changed_ns = -1
        self._seen: dict[str, tuple[int, int]] = {}

    def changed(self) -> list[str]:
        """The domains whose files came or changed since the last call."""
        try:
            changed_ns = self._directory.stat().st_mtime_ns
            if changed_ns == self._changed_ns:
                return []
            # libvirt writes a new file in the old one's place, so that the directory changes too.
            now_ns = time.time_ns()
            with os.scandir(self._directory) as entries:
                files = [entry for entry in entries if entry.name.endswith(".xml")]
                seen = {file.name: (file.inode(), file.stat().st_mtime_ns) for file in files}
        except OSError:
            return []  # it is not there, or a file vanished meanwhile: the next call finds the rest
        former, self._seen = self._seen, seen
        self._changed_ns = changed_ns if changed_ns + _TICK_NS < now_ns else -1
        return [name.removesuffix(".xml") for name in seen if former.get(name) != seen[name]]

# SPDX-License-Identifier: GPL-2.0-or-later
"""What libvirt changes in the file system without sending an event."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from pathlib import Path

# struct flock of 64 bits (fcntl(2), F_GETLK): type, whence, start, length, pid
_FLOCK = struct.Struct("@hhqqi4x")
# Twice the longest tick of the clock that stamps files (CONFIG_HZ=100). A file that changed less
# than a tick ago can change again and keep the same time.
_TICK_NS = 20_000_000


def is_locked(file: Path) -> bool:
    """Whether a process holds a lock on a file, as libvirt's daemons do on theirs while they live.

    It does not take the lock to find out: a daemon that starts at that moment must find it free.
    False where the file cannot be opened.
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

    libvirt sends no event when a device is added only to a domain's next start (`virsh
    attach-disk --config`). Only these files show it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._changed_ns = -1
        self._seen: dict[str, tuple[int, int]] = {}

    def changed(self) -> list[str]:
        """The names of the domains whose files are new or have changed since the last call."""
        try:
            changed_ns = self._directory.stat().st_mtime_ns
            if changed_ns == self._changed_ns:
                return []
            # libvirt replaces the old file with a new one, so the directory changes too.
            now_ns = time.time_ns()
            with os.scandir(self._directory) as entries:
                files = [entry for entry in entries if entry.name.endswith(".xml")]
                seen = {file.name: (file.inode(), file.stat().st_mtime_ns) for file in files}
        except OSError:
            return []  # the directory is missing, or a file vanished: the next call finds the rest
        former, self._seen = self._seen, seen
        self._changed_ns = changed_ns if changed_ns + _TICK_NS < now_ns else -1
        return [name.removesuffix(".xml") for name in seen if former.get(name) != seen[name]]

# SPDX-License-Identifier: GPL-2.0-or-later
"""The names of devices below /dev, which are symlinks, and who decides where they lead."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

_LINKS = 40
# udev makes these from what it reads on the disks (its rules 60-persistent-storage and others).
_BY_CONTENT = re.compile(
    r"/dev/disk/(by-(label|uuid|partlabel|partuuid|designator)/"
    r"|by-id/(lvm-pv-uuid|md-uuid|md-name)-)"
)


def resolved(path: str) -> str:
    """Where a name below /dev leads, through symlinks of root's; any other path stays as it is.

    Everybody may make symlinks in /dev/shm, and such a one is not followed.
    """
    if not path.startswith("/dev/"):
        return path
    real = _through_roots_links(path)
    return real if real.startswith("/dev/") else path


def _through_roots_links(path: str) -> str:
    """The real path; empty where a link on the way lies where others than root may put one."""
    done, links = "/", 0
    waiting = path.split("/")[::-1]
    while waiting:
        step = waiting.pop()
        if step in ("", "."):
            continue
        if step == "..":
            done = str(Path(done).parent)
            continue
        try:
            target = os.readlink(f"{done}/{step}")  # noqa: PTH115
        except OSError:  # it is none, or nothing is there
            done = f"{done.rstrip('/')}/{step}"
            continue
        links += 1
        if links > _LINKS or not _is_roots(done):
            return ""
        done = "/" if target.startswith("/") else done
        waiting += target.split("/")[::-1]
    return done


def _is_roots(directory: str) -> bool:
    found = Path(directory).stat()
    return found.st_uid == 0 and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def is_by_content(path: str) -> bool:
    """Whether a name comes from what is on the disk, which the VM that writes the disk decides."""
    return _BY_CONTENT.match(path) is not None

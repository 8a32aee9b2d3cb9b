# SPDX-License-Identifier: GPL-2.0-or-later
"""User namespaces: whether this kernel lets users make them, and whom one maps.

See user_namespaces(7), and ioctl_ns(2) for what a namespace belongs to.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

# <linux/nsfs.h>
_NS_GET_PARENT, _NS_GET_OWNER_UID = 0xB702, 0xB704
_MOST = Path("/proc/sys/user/max_user_namespaces")
# Debian's own switch.
_UNPRIVILEGED = Path("/proc/sys/kernel/unprivileged_userns_clone")


def why_not() -> str:
    """Why a user other than root cannot make a user namespace; empty if it can."""
    for switch in (_MOST, _UNPRIVILEGED):
        try:
            value = switch.read_text().strip()
        except FileNotFoundError:
            if switch is _MOST:
                return "this kernel has no user namespaces"
            continue
        if value == "0":
            return f"{'.'.join(switch.parts[3:])} is 0"
    return ""


def made_by(pid: int) -> int | None:
    """The uid that made the user namespace in which a process is, if it is a child of our own.

    None where the process is in ours, or in one further down. Raises OSError where it is gone.
    """
    ours = Path("/proc/self/ns/user").stat()
    handle = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.path.samestat(os.fstat(handle), ours):
            return None
        parent = fcntl.ioctl(handle, _NS_GET_PARENT)
        try:
            if not os.path.samestat(os.fstat(parent), ours):
                return None
        finally:
            os.close(parent)
        found = fcntl.ioctl(handle, _NS_GET_OWNER_UID, bytes(4))
        return int(struct.unpack("=I", found)[0])
    finally:
        os.close(handle)


def is_unmapped(pid: int) -> bool:
    """Whether nobody is mapped yet into the user namespace of a process. Raises OSError."""
    return not any(Path(f"/proc/{pid}/{kind}_map").read_text() for kind in ("uid", "gid"))


def map_ids(pid: int, uid: int, gids: tuple[int, ...]) -> None:
    """Let a process in a new user namespace become this user, with these groups, and no other.

    The kernel takes each map once; one that is there already is left. Raises OSError.
    """
    groups = "".join(f"{gid} {gid} 1\n" for gid in sorted({*gids}))
    for kind, content in (("gid", groups), ("uid", f"{uid} {uid} 1\n")):
        file = Path(f"/proc/{pid}/{kind}_map")
        if file.read_text().split() != content.split():
            _write_at_once(file, content.encode())


def _write_at_once(file: Path, content: bytes) -> None:
    """In one call, as user_namespaces(7) wants it."""
    handle = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, content)
    finally:
        os.close(handle)

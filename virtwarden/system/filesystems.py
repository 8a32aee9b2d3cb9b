# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a file system lets each file belong to any user: not all of them do."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from virtwarden.errors import HostError

# On these it depends on the server, the mount options or the program behind it (mount(8), nfs(5),
# "root_squash" in exports(5)), or there are no owners at all.
_UNSURE = frozenset(
    (
        *("9p", "afs", "ceph", "cifs", "exfat", "fuse", "fuseblk", "glusterfs", "hfs", "hfsplus"),
        *("msdos", "nfs", "nfs4", "ntfs", "ntfs3", "smb3", "vboxsf", "vfat", "virtiofs"),
    )
)
_MOUNTS = Path("/proc/self/mountinfo")
_REFUSED = (errno.EACCES, errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP, errno.EOVERFLOW)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def may_refuse_owners(path: str, mounts: Path = _MOUNTS) -> bool:
    """Whether a file is on a file system of which only a try tells."""
    found = kind(path, mounts)
    return found in _UNSURE or found.startswith("fuse.")


def keeps_owners(directory: Path, uid: int) -> bool:
    """Whether a file in a directory can belong to this user; a file is made there for a moment.

    True as well where that cannot be tried, such as on a full disk or a read-only mount.
    """
    name = f".virt-warden.{os.urandom(8).hex()}"
    try:
        parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        handle = os.open(name, _NEW, 0o600, dir_fd=parent)
        try:
            os.fchown(handle, uid, uid)
            return os.fstat(handle).st_uid == uid
        finally:
            os.close(handle)
    except OSError as error:
        return error.errno not in _REFUSED
    finally:
        with suppress(OSError):
            os.unlink(name, dir_fd=parent)
        os.close(parent)


def unreadable(path: str, error: OSError, name: str = "") -> HostError:
    """What to tell where root cannot read a file; on a server, root is often nobody.

    `name` says in words what the file is.
    """
    name = name or path
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return HostError(f"{name} is not there", fix="make it, or name another one: virsh edit")
    if error.errno not in (errno.EACCES, errno.EPERM):
        return HostError(f"{name} cannot be read: {error.strerror}", fix=f"as root: cat {path}")
    return HostError(
        f"root cannot read {name}: {error.strerror}{of_kind(path)}",
        fix=f"let everybody read it, there where it is stored: chmod o+r; or {ways_out(path)}",
    )


def of_kind(path: str) -> str:
    """The type of a path's file system in brackets, for a message; empty where unknown."""
    found = kind(path)
    return f" (its file system is {found})" if found else ""


def ways_out(path: str) -> str:
    """What helps where a file system has not all that a local one has, for the fix of a message."""
    export = "export it to this host with no_root_squash (exports(5)), or "
    return f"{export if kind(path).startswith('nfs') else ''}move it to ext4, xfs or btrfs"


def kind(path: str, mounts: Path = _MOUNTS) -> str:
    """The type of a path's file system, by its device (proc(5), mountinfo); empty where unknown."""
    try:
        device = os.stat(path).st_dev  # noqa: PTH116 - the path may be as odd as an XML names it
        lines = mounts.read_text().splitlines()
    except (OSError, ValueError):
        return ""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in lines:
        of_mount, _, of_file_system = line.partition(" - ")
        if of_mount.split()[2] == wanted:
            return of_file_system.split()[0]
    return ""

# SPDX-License-Identifier: GPL-2.0-or-later
"""Who has a file or block device open.

Of a file the kernel tells whether anybody has, by a lease (fcntl(2), F_SETLEASE): also of a
descriptor that no process shows, because it is on its way through a socket. Of a device, and of a
file on a file system without leases, only the processes tell.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from virtwarden.system import blockstack, descriptors, files, filesystems
from virtwarden.system.blockstack import Identity

# A process that ends, or that only looks at the file, closes it in a moment.
_PAUSES_SECONDS = (0, 0.01, 0.05, 0.2)
# What a file system without leases says, and who may not ask: SELinux may keep CAP_LEASE from us.
_NO_LEASES = (errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM)
# Where the server decides about a lease, EAGAIN says nothing of who has the file open: it is the
# usual answer of one that hands out no delegations (NFS) or oplocks (SMB).
_LEASED_BY_SERVER = frozenset(("cifs", "nfs", "nfs4", "smb3"))


class Use(IntEnum):
    """What others have a file open for."""

    NONE = 0
    READING = 1
    WRITING = 2
    UNKNOWN = 3


@dataclass(frozen=True)
class Opener:
    """A process that has it open; `uid` is root's only if all of its threads' are."""

    pid: int
    uid: int
    program: str
    writes: bool


def others_use(handle: int) -> Use:
    """What others have an open file open for; `handle` may be open with O_PATH only."""
    found = Use.UNKNOWN
    for pause in _PAUSES_SECONDS:
        time.sleep(pause)
        found = _used_now(handle)
        if found in (Use.NONE, Use.UNKNOWN):
            break
    return found


def _used_now(handle: int) -> Use:
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        return Use.UNKNOWN
    by_name = files.by_descriptor(handle)
    try:
        reopened = os.open(by_name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:  # a server that shuts root out, such as NFS with root_squash
        return Use.UNKNOWN
    try:
        # Somebody who opens it just now breaks the lease; SIGIO, the default, would end us.
        fcntl.fcntl(reopened, fcntl.F_SETSIG, signal.SIGURG)
        for lease, found in ((fcntl.F_WRLCK, Use.NONE), (fcntl.F_RDLCK, Use.READING)):
            try:
                fcntl.fcntl(reopened, fcntl.F_SETLEASE, lease)
            except OSError as error:
                if error.errno in _NO_LEASES or _is_leased_by_server(by_name):
                    return Use.UNKNOWN
                if error.errno != errno.EAGAIN:
                    raise
            else:
                fcntl.fcntl(reopened, fcntl.F_SETLEASE, fcntl.F_UNLCK)
                return found
    finally:
        os.close(reopened)
    return Use.WRITING


def _is_leased_by_server(path: Path) -> bool:
    return filesystems.kind(str(path)) in _LEASED_BY_SERVER


def openers(handle: int) -> list[Opener]:
    """The processes that have an open file or device open themselves, without this one."""
    own = blockstack.identity_of(os.fstat(handle))
    return [
        opener
        for pid in descriptors.processes()
        if pid != os.getpid()
        for opener in _opener(pid, own)
    ]


def _opener(pid: int, own: Identity) -> Iterator[Opener]:
    ways = [
        _writes(directory, number)
        for directory, number in descriptors.of_process(pid)
        if _is_same(f"{directory}/fd/{number}", own)
    ]
    uids = descriptors.uids(pid) if ways else []
    if uids:
        yield Opener(pid, max(uids), descriptors.program(pid), any(ways))


def _is_same(descriptor: str, own: Identity) -> bool:
    with suppress(OSError):  # closed meanwhile
        # To ask what a descriptor leads to takes longer than to read its name.
        name = os.readlink(descriptor)  # noqa: PTH115
        if name.startswith("/"):
            return blockstack.identity_of(os.stat(descriptor)) == own  # noqa: PTH116
    return False


def _writes(directory: str, number: str) -> bool:
    with suppress(OSError), open(f"{directory}/fdinfo/{number}") as information:  # noqa: PTH123
        for line in information:
            if line.startswith("flags:"):
                return int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    return False

# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads a file that only its owner could have written, or says why it is not trustworthy.

Group and world must not be able to write. Where a file has an ACL, the group bits of its mode are
the most that the ACL grants (acl(5)), so they also cover named users.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from virtwarden.errors import PolicyError

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
# Without O_NONBLOCK, opening a FIFO would wait for a writer, and libvirt would wait for us.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NOT_ITSELF = (errno.ELOOP, errno.ENOTDIR)


def read(path: Path, owner: int, limit: int) -> bytes:
    """All of a regular file of at most `limit` bytes, in a directory as trustworthy as itself.

    Raises FileNotFoundError where it or the directory does not exist. Raises PolicyError where
    others than the owner can write one of them, where one has the wrong type, or where one cannot
    be read.
    """
    with directory(path.parent, owner) as parent:
        handle = _open(path, _READ, parent)
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise PolicyError(
                    "it is not a regular file", where=str(path), fix=f"ls -ld {quoted(path)}"
                )
            _check_owner(found, path, owner)
            return _read_all(handle, path, limit)
        except OSError as error:
            raise _unreadable(path, error) from None
        finally:
            os.close(handle)


@contextmanager
def directory(path: Path, owner: int) -> Iterator[int]:
    """A descriptor of a directory that only its owner can write; raises as `read` does."""
    handle = _open(path, _READ | os.O_DIRECTORY)
    try:
        _check_owner(os.fstat(handle), path, owner)
        yield handle
    finally:
        os.close(handle)


def quoted(path: Path) -> str:
    """The path in a form that can be pasted into a shell."""
    import shlex

    return shlex.quote(str(path))


def _open(path: Path, flags: int, parent: int | None = None) -> int:
    try:
        return os.open(path if parent is None else path.name, flags, dir_fd=parent)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _NOT_ITSELF and path.is_symlink():
            raise PolicyError(
                "it is a symlink, which is not followed",
                where=str(path),
                fix=f"put in its place what it leads to: readlink -f {quoted(path)}",
            ) from None
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> PolicyError:
    return PolicyError(
        f"it cannot be read: {error.strerror}", where=str(path), fix=f"ls -ld {quoted(path)}"
    )


def _check_owner(found: os.stat_result, path: Path, owner: int) -> None:
    who = "root" if owner == 0 else str(owner)
    if found.st_uid != owner:
        raise PolicyError(
            f"it belongs to uid {found.st_uid}, not to {who}",
            where=str(path),
            fix=f"see what is in it, then: chown {who} {quoted(path)}",
        )
    if found.st_mode & _OTHERS_WRITE:
        raise PolicyError(
            f"others than {who} may write it (mode {stat.S_IMODE(found.st_mode):04o})",
            where=str(path),
            fix=f"see what is in it, then: chmod go-w {quoted(path)}",
        )


def _read_all(handle: int, path: Path, limit: int) -> bytes:
    content = bytearray()
    while len(content) <= limit:
        piece = os.read(handle, limit + 1 - len(content))
        if not piece:
            return bytes(content)
        content += piece
    raise PolicyError(
        f"it is larger than {limit // 1024} KiB", where=str(path), fix=f"shorten {quoted(path)}"
    )

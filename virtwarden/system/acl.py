# SPDX-License-Identifier: GPL-2.0-or-later
"""The POSIX access ACL of an open file, which may be open with O_PATH only; acl(5)."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

# acl(5), as the kernel stores it; xattr(7).
_ATTRIBUTE = "system.posix_acl_access"
_EXECUTE = 1


def writers(handle: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The uids, and the gids, to which a named entry in the access ACL of a file grants writing."""
    import posix1e

    if not is_extended(handle):
        return (), ()
    entries = [entry for entry in _acl(handle) if entry.permset.write]
    users = tuple(e.qualifier for e in entries if e.tag_type == posix1e.ACL_USER)
    return users, tuple(e.qualifier for e in entries if e.tag_type == posix1e.ACL_GROUP)


def _acl(handle: int) -> Any:
    """The access ACL of an open file.

    libacl asks for its size first, and fails where another process then makes it longer.
    """
    import posix1e

    path = _path(handle)
    for _ in range(99):  # the owner of the file could make it longer for ever
        try:
            return posix1e.ACL(file=path)
        except OSError as error:
            if error.errno != errno.ERANGE:
                raise
    return posix1e.ACL(file=path)


def is_extended(handle: int) -> bool:
    """Whether an open file's access ACL says more than its mode does."""
    import posix1e

    try:
        return bool(posix1e.has_extended(_path(handle)))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return False  # a file system without ACLs


def can_be_set(handle: int) -> bool:
    """Whether the file system of an open file has ACLs, and is not mounted read-only."""
    if os.fstatvfs(handle).f_flag & os.ST_RDONLY:
        return False
    try:
        os.getxattr(_path(handle), _ATTRIBUTE)
    except OSError as error:
        return error.errno == errno.ENODATA
    return True


def text(handle: int) -> str:
    """The whole access ACL of an open file, its ids as numbers; empty where the mode says all."""
    import posix1e

    if not is_extended(handle):
        return ""
    written = _acl(handle).to_any_text("", b",", posix1e.TEXT_NUMERIC_IDS)
    return str(written.decode())


def named(text: str) -> frozenset[str]:
    """The entries of such a text that name a user or a group."""
    return frozenset(entry for entry in text.split(",") if entry and "::" not in entry)


def restore(handle: int, text: str) -> None:
    """Give an open file the whole access ACL that `text` gave; an empty one removes the ACL."""
    import posix1e

    if text:
        posix1e.ACL(text=text).applyto(_path(handle))
    elif is_extended(handle):
        posix1e.ACL(mode=stat.S_IMODE(os.fstat(handle).st_mode)).applyto(_path(handle))


def deny_writing(handle: int) -> None:
    """Take the right to write an open file from all but its owner."""
    import posix1e

    if is_extended(handle):
        entries = _acl(handle)
        for entry in entries:
            if entry.tag_type != posix1e.ACL_USER_OBJ:
                entry.permset.write = False
        entries.applyto(_path(handle))
    mode = stat.S_IMODE(os.fstat(handle).st_mode)
    Path(_path(handle)).chmod(mode & ~(stat.S_IWGRP | stat.S_IWOTH))


def permissions(handle: int, uid: int) -> int | None:
    """What the ACL of an open file grants this uid by name, as rwx bits; None without an entry."""
    import posix1e

    for entry in _acl(handle) if is_extended(handle) else ():
        if entry.tag_type == posix1e.ACL_USER and entry.qualifier == uid:
            granted = entry.permset
            return int(4 * granted.read + 2 * granted.write + granted.execute)
    return None


def let_only_execute(handle: int, gid: int) -> None:
    """Let a group execute an open file and not read it, by an entry. Harmless where it has one.

    Whoever is in that group, and is not named otherwise, gets no more by the mode; acl(5).
    Raises OSError as `grant` does.
    """
    import posix1e

    if is_only_executed_by(handle, gid):
        return
    entries = _acl(handle)
    _drop(entries, posix1e.ACL_GROUP, gid)
    entry = entries.append()
    entry.tag_type = posix1e.ACL_GROUP
    entry.qualifier = gid
    entry.permset.execute = True
    mask = _mask(entries)
    if mask is None:
        entries.calc_mask()
    else:
        mask.execute = True
    entries.applyto(_path(handle))


def is_only_executed_by(handle: int, gid: int) -> bool:
    """Whether a file has such an entry."""
    import posix1e

    return any(
        (entry.tag_type, entry.qualifier) == (posix1e.ACL_GROUP, gid)
        and entry.permset.execute
        and not (entry.permset.read or entry.permset.write)
        for entry in (_acl(handle) if is_extended(handle) else ())
        if entry.tag_type in (posix1e.ACL_GROUP, posix1e.ACL_USER)
    )


def let_read_again(handle: int, gid: int) -> None:
    """Remove such an entry, as `revoke` removes a user's. Harmless where there is none."""
    import posix1e

    if is_only_executed_by(handle, gid):
        _remove(handle, posix1e.ACL_GROUP, gid)


def grant(handle: int, uid: int, rwx: int) -> None:
    """Set what the ACL of an open file grants this uid, as rwx bits; other entries stay.

    The mask gets these bits and no more, so that no other entry comes to write by it.
    Raises OSError (EOPNOTSUPP) where the file system has no ACLs.
    """
    import posix1e

    entries = _acl(handle)
    _drop(entries, posix1e.ACL_USER, uid)
    entry = entries.append()
    entry.tag_type = posix1e.ACL_USER
    entry.qualifier = uid
    entry.permset.read = bool(rwx & 4)
    entry.permset.write = bool(rwx & 2)
    entry.permset.execute = bool(rwx & 1)
    mask = _mask(entries)
    if mask is None:
        entries.calc_mask()
    else:
        mask.read, mask.write = mask.read or bool(rwx & 4), mask.write or bool(rwx & 2)
        mask.execute = mask.execute or bool(rwx & 1)
    entries.applyto(_path(handle))


def _mask(acl: Any) -> Any:
    """The permissions of the mask, which no named entry exceeds; None without a mask."""
    import posix1e

    return next((entry.permset for entry in acl if entry.tag_type == posix1e.ACL_MASK), None)


def revoke(handle: int, uid: int) -> None:
    """Remove this uid's entry. Where no named entry is left, the file has its plain mode again.

    Otherwise the mask stays: a wider one would revive what other entries are worth no more.
    """
    import posix1e

    _remove(handle, posix1e.ACL_USER, uid)


def _remove(handle: int, tag: int, qualifier: int) -> None:
    import posix1e

    entries = _acl(handle)
    _drop(entries, tag, qualifier)
    named = {posix1e.ACL_USER, posix1e.ACL_GROUP}
    if not any(entry.tag_type in named for entry in entries):
        _drop(entries, posix1e.ACL_MASK)
    entries.applyto(_path(handle))


def _drop(acl: Any, tag: int, qualifier: int | None = None) -> None:
    for entry in list(acl):
        if entry.tag_type == tag and (qualifier is None or entry.qualifier == qualifier):
            acl.delete_entry(entry)


def _path(handle: int) -> str:
    """A path for libacl, which cannot use an O_PATH descriptor; proc(5), /proc/PID/fd."""
    return f"/proc/self/fd/{handle}"

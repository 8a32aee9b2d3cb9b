# SPDX-License-Identifier: GPL-2.0-or-later
"""Files, opened step by step, so that swapping a part of the path meanwhile has no effect."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from virtwarden.errors import HostError
from virtwarden.system import acl, devicenames


@dataclass(frozen=True)
class Inode:
    """One step of a path; `writers` are the uids and gids to which an ACL grants writing.

    `writing_users` are the uids among them. `takes_acls` is asked of files that everybody may read:
    others need an ACL in any case.
    """

    path: str
    device: int
    number: int
    mode: int
    uid: int
    gid: int
    links: int
    rdev: int = 0
    writers: tuple[int, ...] = ()
    writing_users: tuple[int, ...] = ()
    takes_acls: bool = True

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode number."""
        return self.device, self.number

    @property
    def permissions(self) -> int:
        """The mode without the file's type."""
        return stat.S_IMODE(self.mode)


@dataclass(frozen=True)
class Found:
    """A path walked without following a symlink.

    `leaf` is None where the path ends early. `symlink` is the step that is a symlink, and `real`
    is then where the path leads.
    """

    path: str
    directories: tuple[Inode, ...]
    leaf: Inode | None
    symlink: str = ""
    real: str = ""


_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# The end of a name that write_atomically uses until the whole file is written.
_RANDOM = re.compile("[0-9a-f]{16}")
_TORN = re.compile(rf"\..+\.{_RANDOM.pattern}")


def look(path: str) -> Found:
    """Walk an absolute path from the root, a step at a time, following no symlink.

    Device nodes have names that are symlinks (/dev/vg0/web01). It resolves those of root's below
    /dev first. Raises HostError where the path is not absolute, is not
    in its plain form, or cannot be walked.
    """
    if os.path.normpath(path) != path or not path.startswith("/") or path.startswith("//"):
        raise HostError(f"{path!r} is not a plain absolute path", fix="write it without . .. //")
    walked = devicenames.resolved(path)
    directories: list[Inode] = []
    handle = os.open("/", _STEP | os.O_DIRECTORY)
    try:
        directories.append(_inode(handle, "/"))
        steps = walked.strip("/").split("/")
        for depth, step in enumerate(steps):
            here = "/" + "/".join(steps[: depth + 1])
            try:
                deeper = os.open(step, _STEP, dir_fd=handle)
            except (FileNotFoundError, NotADirectoryError):
                return Found(path, tuple(directories), None)
            except OSError as error:
                raise HostError(
                    f"{here} cannot be looked at: {error.strerror}", fix=f"as root: stat {here}"
                ) from None
            os.close(handle)
            handle = deeper
            inode = _inode(handle, here)
            if stat.S_ISLNK(inode.mode):
                return Found(path, tuple(directories), None, here, os.path.realpath(path))
            if depth == len(steps) - 1:
                return Found(path, tuple(directories), inode)
            directories.append(inode)
    finally:
        os.close(handle)
    return Found(path, tuple(directories), None)


def _inode(handle: int, path: str) -> Inode:
    found = os.fstat(handle)
    # The group bits are the mask of an ACL, which grants nothing beyond them (acl(5)).
    users, groups = acl.writers(handle) if found.st_mode & stat.S_IWGRP else ((), ())
    is_public = stat.S_ISREG(found.st_mode) and bool(found.st_mode & stat.S_IROTH)
    return Inode(
        path=path,
        device=found.st_dev,
        number=found.st_ino,
        mode=found.st_mode,
        uid=found.st_uid,
        gid=found.st_gid,
        links=found.st_nlink,
        rdev=found.st_rdev,
        writers=(*users, *groups),
        writing_users=users,
        takes_acls=not is_public or acl.can_be_set(handle),
    )


def sync_directory(path: Path) -> None:
    """Write the names in a directory to the disk; fsync(2), NOTES."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def held(path: str, device: int, number: int, boot: str = "") -> Iterator[int]:
    """An O_PATH descriptor of the same file that was looked at before.

    Each boot gives out device numbers again. Where the file was looked at in another `boot` than
    this, only the inode number has to be the same.

    Raises HostError where the path now leads to another file, is gone, or cannot be walked.
    """
    handle, found = _walked(path)
    try:
        moved = found.st_dev != device and boot in ("", boot_id())
        if moved or found.st_ino != number:
            raise HostError(
                f"{path} is no longer the file that was reviewed",
                fix=f"see who replaced it: ls -li {path}",
            )
        yield handle
    finally:
        os.close(handle)


def _walked(path: str) -> tuple[int, os.stat_result]:
    """A descriptor of what a path leads to, following no symlink, and what it is.

    Raises HostError.
    """
    handle = os.open("/", _STEP | os.O_DIRECTORY)
    try:
        for step in filter(None, devicenames.resolved(path).strip("/").split("/")):
            deeper = os.open(step, _STEP, dir_fd=handle)
            os.close(handle)
            handle = deeper
        return handle, os.fstat(handle)
    except (FileNotFoundError, NotADirectoryError):  # or a symlink or a file is on the way to it
        os.close(handle)
        raise HostError(f"{path} is gone") from None
    except OSError as error:  # such as a server that shuts root out, or is away
        os.close(handle)
        raise HostError(
            f"{path} cannot be reached: {error.strerror}", fix=f"as root: stat {path}"
        ) from None


def private_directory(path: Path) -> None:
    """Make this directory and those above it where they are missing, for root only."""
    if not path.exists():
        private_directory(path.parent)
        with suppress(FileExistsError):  # another start made it first
            path.mkdir(mode=0o700)


def passable_directory(path: Path) -> None:
    """Make this directory where it is missing. Others may pass through it, but not list it."""
    path.mkdir(mode=0o711, parents=True, exist_ok=True)
    path.chmod(0o711)


@contextmanager
def locked(directory: Path, *, wait: bool = True) -> Iterator[int]:
    """Hold the lock of a directory, which is made where it is missing (flock(2)).

    Gives the descriptor with the lock: a child that inherits it holds the lock too. Waits while
    another process holds the lock; without `wait`, raises BlockingIOError then.
    """
    handle = _lock(directory, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield handle
    finally:
        os.close(handle)


def is_locked(directory: Path) -> bool:
    """Whether a process holds the lock of a directory."""
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Two who ask at once do not see each other.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _lock(directory: Path, how: int) -> int:
    while True:
        private_directory(directory)
        with suppress(FileNotFoundError):
            handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, how)
            except OSError:
                os.close(handle)
                raise
            # The former holder may have removed the directory: then this lock excludes nobody.
            if directory.exists() and os.path.samestat(os.fstat(handle), directory.lstat()):
                return handle
            os.close(handle)


def boot_id() -> str:
    """The unique id of this boot; random(4), /proc/sys/kernel/random/boot_id."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def by_descriptor(handle: int) -> Path:
    """A path that leads to exactly this open file; proc(5), /proc/PID/fd."""
    return Path(f"/proc/self/fd/{handle}")


def version_of(program: Path) -> str:
    """A text that changes when another program replaces this one; empty where there is none."""
    try:
        found = program.stat()
    except OSError:
        return ""
    return f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns}"


def read_if_there(path: Path) -> str:
    """The text of a small file of ours; empty where it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""


def write_atomically(
    path: Path, content: bytes, mode: int, *, gid: int = 0, durable: bool = False
) -> None:
    """Put a whole file of root's in place, or leave the old one; it replaces a symlink there.

    A `durable` file is on the disk when this returns, and survives a loss of power.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    handle = os.open(temporary, _NEW, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchown(file.fileno(), 0, gid)
            os.fchmod(file.fileno(), mode)
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            sync_directory(path.parent)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise


def discard(path: Path) -> None:
    """Remove the file that write_atomically put in place, and those it leaves when it is killed.

    Nobody may be writing that file meanwhile. Harmless where nothing is there.
    """
    path.unlink(missing_ok=True)
    start = f".{path.name}."
    # With the files of a thousand domains, pathlib and glob take ten times as long.
    with suppress(FileNotFoundError):
        for name in os.listdir(path.parent):  # noqa: PTH208
            if name.startswith(start) and _RANDOM.fullmatch(name, len(start)):
                (path.parent / name).unlink(missing_ok=True)


def discard_torn(directory: Path) -> None:
    """Remove all files that write_atomically leaves in a directory when it is killed.

    Nobody may be writing in that directory meanwhile.
    """
    for name in os.listdir(directory):  # noqa: PTH208 - as above
        if _TORN.fullmatch(name):
            (directory / name).unlink(missing_ok=True)

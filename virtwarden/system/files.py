# SPDX-License-Identifier: GPL-2.0-or-later
"""Files, reached so that nobody can swap a step of the path under our feet."""

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
from virtwarden.system import acl


@dataclass(frozen=True)
class Inode:
    """What one step of a path is; `writers` are the uids and gids that an ACL lets write."""

    path: str
    device: int
    number: int
    mode: int
    uid: int
    gid: int
    links: int
    rdev: int = 0
    writers: tuple[int, ...] = ()

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

    `leaf` is None where the path ends early; `symlink` is the step that is one, and then
    `real` is where it leads.
    """

    path: str
    directories: tuple[Inode, ...]
    leaf: Inode | None
    symlink: str = ""
    real: str = ""


_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# With what the names of write_atomically end until all is written.
_RANDOM = re.compile("[0-9a-f]{16}")
_TORN = re.compile(rf"\..+\.{_RANDOM.pattern}")


def look(path: str) -> Found:
    """Walk an absolute path from the root, a step at a time, following no symlink.

    Device nodes are named by symlinks that root made (/dev/vg0/web01): below /dev, which only
    root can write, these are resolved first. Raises HostError where the path is not absolute or
    is not in its plain form.
    """
    if os.path.normpath(path) != path or not path.startswith("/") or path.startswith("//"):
        raise HostError(f"{path!r} is not a plain absolute path", fix="write it without . .. //")
    walked = _resolve_device(path)
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


def _resolve_device(path: str) -> str:
    if not path.startswith("/dev/"):
        return path
    real = os.path.realpath(path)
    return real if real.startswith("/dev/") else path


def _inode(handle: int, path: str) -> Inode:
    found = os.fstat(handle)
    return Inode(
        path=path,
        device=found.st_dev,
        number=found.st_ino,
        mode=found.st_mode,
        uid=found.st_uid,
        gid=found.st_gid,
        links=found.st_nlink,
        rdev=found.st_rdev,
        # An ACL grants nothing that the group bits, which are its mask then, do not (acl(5)).
        writers=acl.writers(handle) if found.st_mode & stat.S_IWGRP else (),
    )


def sync_directory(path: Path) -> None:
    """See to it that the names in a directory are on the disk; fsync(2), NOTES."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def held(path: str, device: int, number: int, boot: str = "") -> Iterator[int]:
    """An O_PATH descriptor of the very file that was looked at, however its path was swapped.

    Device numbers are handed out anew at each boot: where the file was looked at in another
    `boot` than this, the inode number alone has to be the same.

    Raises HostError where the path leads elsewhere by now or is gone.
    """
    handle = os.open("/", _STEP | os.O_DIRECTORY)
    try:
        for step in _resolve_device(path).strip("/").split("/"):
            if not step:
                continue
            deeper = os.open(step, _STEP, dir_fd=handle)
            os.close(handle)
            handle = deeper
        found = os.fstat(handle)
        moved = found.st_dev != device and boot in ("", boot_id())
        if moved or found.st_ino != number:
            raise HostError(
                f"{path} is no longer the file that was reviewed",
                fix=f"see who replaced it: ls -li {path}",
            )
        yield handle
    except FileNotFoundError:
        raise HostError(f"{path} is gone") from None
    finally:
        os.close(handle)


def private_directory(path: Path) -> None:
    """See to it that this directory and those above it are there; those made are root's alone."""
    if not path.exists():
        private_directory(path.parent)
        with suppress(FileExistsError):  # another start was faster
            path.mkdir(mode=0o700)


def passable_directory(path: Path) -> None:
    """See to it that this directory is there: others may pass through it, but not list it."""
    path.mkdir(mode=0o711, parents=True, exist_ok=True)
    path.chmod(0o711)


@contextmanager
def locked(directory: Path, *, wait: bool = True) -> Iterator[int]:
    """Hold a directory alone, made where it is missing; others wait for their turn (flock(2)).

    Gives the descriptor with the lock: a child that inherits it holds it too. Who will not wait
    gets BlockingIOError where another one holds it.
    """
    handle = _lock(directory, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield handle
    finally:
        os.close(handle)


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
            # Whoever held it before may have removed it: the lock is then on nothing.
            if directory.exists() and os.path.samestat(os.fstat(handle), directory.lstat()):
                return handle
            os.close(handle)


def boot_id() -> str:
    """What tells this boot from all others; random(4), /proc/sys/kernel/random/boot_id."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def by_descriptor(handle: int) -> Path:
    """A path that leads to just this open file; proc(5), /proc/PID/fd."""
    return Path(f"/proc/self/fd/{handle}")


def version_of(program: Path) -> str:
    """What changes when a program is replaced by another one; empty where there is none."""
    try:
        found = program.stat()
    except OSError:
        return ""
    return f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns}"


def read_if_there(path: Path) -> str:
    """What a small file of ours says; empty where it is not there."""
    try:
        return path.read_text()
    except OSError:
        return ""


def write_atomically(
    path: Path, content: bytes, mode: int, *, gid: int = 0, durable: bool = False
) -> None:
    """Put a whole file in place, root's, or none at all; a symlink in the way is replaced.

    A `durable` file is on the disk when this returns, whatever happens to the host's power.
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
    """Remove what write_atomically put in place, and what it leaves beside it when it is killed.

    Nobody may be writing there meanwhile. Harmless where nothing is there.
    """
    path.unlink(missing_ok=True)
    start = f".{path.name}."
    # pathlib and glob take ten times as long, where a thousand domains have theirs.
    with suppress(FileNotFoundError):
        for name in os.listdir(path.parent):  # noqa: PTH208
            if name.startswith(start) and _RANDOM.fullmatch(name, len(start)):
                (path.parent / name).unlink(missing_ok=True)


def discard_torn(directory: Path) -> None:
    """Remove what write_atomically leaves in a directory, beside whichever file, when it is killed.

    Nobody may be writing there meanwhile.
    """
    for name in os.listdir(directory):  # noqa: PTH208 - as above
        if _TORN.fullmatch(name):
            (directory / name).unlink(missing_ok=True)

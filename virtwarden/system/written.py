# SPDX-License-Identifier: GPL-2.0-or-later
"""Remembers each image that a VM's user could write, and what it was based on before that.

A guest that took over its QEMU can write any name of a base into its image's header. So the header
of such an image is never believed again, whoever owns the image later and whatever it is called:
what is remembered outlives unenrolment, removal and purge.

It is kept twice: in files under /var/lib/virt-warden, by the inode of the image, and in an extended
attribute that only root can write, which goes with the image where `mv` and `cp -a` take it to
another file system (xattr(7)).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import stat
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from virtwarden.errors import HostError
from virtwarden.system import files
from virtwarden.system.blockstack import behind_loop
from virtwarden.system.images import Image

_ATTRIBUTE = "trusted.virt-warden.written"
# linux/fs.h, FS_IOC_GETVERSION: tells a file from a later one that got the same inode number.
_GENERATION = 0x80087601
# What a file system without such attributes, or without room for one, says; EBADF: a device.
_NO_ATTRIBUTES = (
    *(errno.EOPNOTSUPP, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EBADF),
)


@dataclass(frozen=True)
class Written:
    """An image as it was when a domain's user got it.

    `base` is None where it stood alone, and where `is_known` is false: nobody knew then.
    """

    domain: str
    path: str
    format: str
    base: Image | None
    is_known: bool = True


def remember(directory: Path, image: Written, *, first: bool = False) -> None:
    """Remember an image for good; `first`: only where nothing of it is remembered yet.

    Does nothing where the image is not there. Raises OSError.
    """
    with suppress(FileNotFoundError):
        handle = _opened(image.path)
        try:
            _remember(directory, handle, image, first=first)
        finally:
            os.close(handle)


def _remember(directory: Path, handle: int, image: Written, *, first: bool) -> None:
    names = _names(handle, image.path)
    if first and _any_line(directory, names) is not None:
        return
    for name in names:
        bucket = _bucket(directory, name)
        line = json.dumps([name, asdict(image)], sort_keys=True)
        if _last(bucket, name) != line:
            files.private_directory(directory)
            _append(bucket, line)
    content = json.dumps(asdict(image), sort_keys=True).encode()
    try:
        if _attribute(handle) != content:
            os.setxattr(handle, _ATTRIBUTE, content)
    except OSError as error:
        if error.errno not in _NO_ATTRIBUTES:
            raise


def _append(bucket: Path, line: str) -> None:
    is_new = not bucket.exists()
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    handle = os.open(bucket, flags, 0o600)
    try:
        # A crash may have cut off the last line: it is not remembered, and ends here.
        fcntl.flock(handle, fcntl.LOCK_EX)
        size = os.fstat(handle).st_size
        torn = b"\n" if size and os.pread(handle, 1, size - 1) != b"\n" else b""
        content = torn + f"{line}\n".encode()
        if os.write(handle, content) != len(content):
            raise OSError(errno.ENOSPC, "No space left on device", str(bucket))
        os.fsync(handle)
    finally:
        os.close(handle)
    if is_new:
        files.sync_directory(bucket.parent)


def look_up(directory: Path, path: str) -> Written | None:
    """What is remembered of an image; None where no VM's user ever had it.

    Raises OSError where the image cannot be opened, and HostError where what is remembered is
    damaged.
    """
    handle = _opened(path)
    try:
        line = _any_line(directory, _names(handle, path))
        try:
            return _read(json.loads(line)[1] if line else json.loads(_attribute(handle) or b"null"))
        except (ValueError, TypeError, KeyError):
            place = f"{directory}: the line {line[:40]}…" if line else f"attribute {_ATTRIBUTE}"
            raise HostError(
                f"what is remembered of {path} is damaged: {place}",
                fix=f"restore it from a backup, or, if no guest wrote that image: {_forget(path)}",
            ) from None
    finally:
        os.close(handle)


def _read(said: Any) -> Written | None:
    if said is None:
        return None
    return Written(**{**said, "base": Image(**said["base"]) if said["base"] else None})


def _forget(path: str) -> str:
    return f"remove the line; setfattr -x {_ATTRIBUTE} {path}"


def _opened(path: str) -> int:
    if stat.S_ISREG(Path(path).stat().st_mode):
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return os.open(path, os.O_PATH | os.O_CLOEXEC)


def _names(handle: int, path: str) -> tuple[str, ...]:
    """What tells this file from all others, also after a reboot and under another name.

    A device that has no name of its own is remembered under the kernel's name and under that of
    the XML: links below /dev/disk lead to it.
    """
    found = os.fstat(handle)
    if stat.S_ISBLK(found.st_mode):
        number = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
        own = _own_name(Path("/sys/dev/block", number))
        names = (own,) if own else (os.path.realpath(path), path)
        return tuple(dict.fromkeys(f"block {name}" for name in names))
    try:
        generation = fcntl.ioctl(handle, _GENERATION, bytes(8))
        return (f"{found.st_ino} {int.from_bytes(generation[:4], 'little')}",)
    except OSError:  # such a file system may use the same numbers as another one
        return (f"{found.st_ino} of {os.fstatvfs(handle).f_fsid}",)


def _own_name(device: Path) -> str:
    """The name that a device mapper's volume, a disk or its partition has in any host's sysfs."""
    part = files.read_if_there(device / "partition").strip()
    disk = device.resolve().parent if part else device
    for place in ("dm/uuid", "wwid", "device/wwid"):
        name = files.read_if_there(disk / place).strip()
        if name:
            return f"{name} {part}".strip()
    if (disk / "loop").is_dir():
        with suppress(OSError):
            device_number, inode = behind_loop(disk.resolve().name)
            return f"loop {device_number} {inode} {part}".strip()
    return ""


def _any_line(directory: Path, names: tuple[str, ...]) -> str | None:
    lines = (_last(_bucket(directory, name), name) for name in names)
    return next((line for line in lines if line is not None), None)


def _attribute(handle: int) -> bytes:
    with suppress(OSError):
        return os.getxattr(handle, _ATTRIBUTE)
    return b""


def _bucket(directory: Path, name: str) -> Path:
    """Files of some lines each, so that a look takes as long as ever on a host of many years."""
    return directory / hashlib.sha256(name.encode()).hexdigest()[:2]


def _last(bucket: Path, name: str) -> str | None:
    start = f"[{json.dumps(name)}, "
    try:
        lines = bucket.read_text().split("\n")[:-1]
    except FileNotFoundError:
        return None
    return next((line for line in reversed(lines) if _is_whole(line, start)), None)


def _is_whole(line: str, start: str) -> bool:
    return line.startswith(start) and line.endswith("}]")

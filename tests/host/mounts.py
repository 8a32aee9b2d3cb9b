# SPDX-License-Identifier: GPL-2.0-or-later
"""The file systems of a private host: all that was there can be read, nothing of it is written."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import struct
import time
from pathlib import Path

# linux/mount.h
_MS_NOSUID = 0x2
_MS_NOEXEC = 0x8
_MS_BIND = 0x1000
_MNT_DETACH = 0x2
_MOUNT_ATTR_RDONLY = 0x1
# linux/fcntl.h
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
# The same number on every architecture; glibc has a function for it since 2.36 alone.
_SYS_MOUNT_SETATTR = 442

_LAYERED = ("/etc", "/var", "/usr", "/root", "/home", "/opt", "/srv")
# The real host's domains, hooks and virt-warden are not ours: libvirtd would start its autostart
# domains a second time.
_EMPTIED = (
    "/etc/libvirt/qemu",
    "/etc/libvirt/hooks",
    "/etc/libvirt/storage",
    "/etc/libvirt/secrets",
    "/etc/virt-warden",
    "/var/lib/libvirt/qemu",
    "/var/lib/virt-warden",
)
_DEVICES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
    "net/tun": (10, 200),
}
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}

# bits/utmp.h: type, pid, line, id, user, host, exit, session, time, address
_UTMP = struct.Struct("<hxxi32s4s32s256shhiii16s20x")
_BOOT_TIME = 2

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def build(checkout: Path) -> None:
    """Lay out the private host, in a mount namespace that is ours already and private."""
    # Opened before anything covers it.
    checkout_fd = os.open(checkout, os.O_PATH | os.O_DIRECTORY)
    _mount_setattr("/", set_flags=_MOUNT_ATTR_RDONLY, flags=_AT_RECURSIVE)
    _mount_setattr("/proc", clear_flags=_MOUNT_ATTR_RDONLY)

    # An overlay keeps its own reference to its layers, so they need no place to stay at.
    _tmpfs("/tmp", "mode=0700")
    for directory in map(Path, _LAYERED):
        if directory.is_dir() and not directory.is_symlink():
            _overlay(directory, Path("/tmp") / directory.name)
    _umount2("/tmp", _MNT_DETACH)

    _tmpfs("/tmp", "mode=1777")
    _runtime_directory()
    _device_directory()
    _system_directory()

    checkout.mkdir(parents=True, exist_ok=True)
    _mount(f"/proc/self/fd/{checkout_fd}", str(checkout), "", _MS_BIND)
    _mount_setattr(str(checkout), clear_flags=_MOUNT_ATTR_RDONLY)
    os.close(checkout_fd)


def _overlay(lower: Path, layer: Path) -> None:
    upper, work = layer / "upper", layer / "work"
    work.mkdir(parents=True)
    _like(lower, upper)
    for emptied in map(Path, _EMPTIED):
        if emptied.is_relative_to(lower) and emptied.is_dir():
            _hide(emptied, lower, upper)
    _mount("overlay", str(lower), "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={work}")


def _hide(directory: Path, lower: Path, upper: Path) -> None:
    inside = directory.relative_to(lower)
    for part in [*reversed(inside.parents[:-1]), inside]:
        if not (upper / part).exists():
            _like(lower / part, upper / part)
    os.setxattr(upper / inside, "trusted.overlay.opaque", b"y")


def _like(original: Path, copy: Path) -> None:
    copy.mkdir()
    shutil.copystat(original, copy)
    owner = original.stat()
    os.chown(copy, owner.st_uid, owner.st_gid)


def _runtime_directory() -> None:
    _tmpfs("/run", "mode=0755")
    Path("/run/lock").mkdir(mode=0o1777)
    # systemd-ask-password 257 makes its directory there, and not this one.
    Path("/run/systemd").mkdir()
    # libvirt marks the owners that it remembers with the time of the boot, and forgets them where
    # that has changed. Without a record it computes one, which a restarted libvirtd may round to
    # another second.
    record_boot(int(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)))


def record_boot(moment: int) -> None:
    """Have utmp(5) say that the host was booted then, in seconds since the epoch."""
    record = _UTMP.pack(_BOOT_TIME, 0, b"~", b"~~", b"reboot", b"", 0, 0, 0, moment, 0, b"")
    Path("/run/utmp").write_bytes(record)


def _device_directory() -> None:
    # Without kvm: where it exists and cannot be used, libvirt probes QEMU anew on every call.
    _tmpfs("/dev", "mode=0755")
    root = Path("/dev")
    for name in ("net", "pts", "shm"):
        (root / name).mkdir()
    for name, (major, minor) in _DEVICES.items():
        os.mknod(root / name, 0o666 | stat.S_IFCHR, os.makedev(major, minor))
        (root / name).chmod(0o666)
    for name, target in _DEVICE_LINKS.items():
        (root / name).symlink_to(target)
    _mount("devpts", "/dev/pts", "devpts", _MS_NOSUID | _MS_NOEXEC, "newinstance,ptmxmode=0666")
    _tmpfs("/dev/shm", "mode=1777")


def _system_directory() -> None:
    # A sysfs shows the network namespace it was mounted in. No cgroup comes back: libvirt does
    # without where it finds none, and one made below the real ones would outlive us.
    _umount2("/sys", _MNT_DETACH)
    _mount("sysfs", "/sys", "sysfs", _MS_NOSUID | _MS_NOEXEC)


def _tmpfs(target: str, options: str) -> None:
    _mount("tmpfs", target, "tmpfs", _MS_NOSUID, options)


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    arguments = (source.encode(), target.encode(), kind.encode(), flags, options.encode())
    _check(_libc.mount(*arguments), f"mount {kind} {options}", target)


def _umount2(target: str, flags: int) -> None:
    _check(_libc.umount2(target.encode(), flags), "umount", target)


def _mount_setattr(
    target: str, *, set_flags: int = 0, clear_flags: int = 0, flags: int = 0
) -> None:
    attributes = _MountAttr(attr_set=set_flags, attr_clr=clear_flags)
    arguments = (_AT_FDCWD, target.encode(), flags, ctypes.byref(attributes))
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    _check(_libc.syscall(_SYS_MOUNT_SETATTR, *arguments, size), "mount_setattr", target)


def _check(result: int, what: str, target: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}", target)

# SPDX-License-Identifier: GPL-2.0-or-later
"""What holds a VM's process beside the sandbox and our filters: its user, limits, QEMU's filter.

Those two are off here. Tried as the VM's user, and from within its own QEMU.
"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.host.captive import WORKS, Captive
from tests.host.command import run
from tests.host.domain import Disk
from tests.host.images import raw
from tests.libvirt.warden import ENFORCING, Warden, as_user, set_policy, until

# asm/unistd_64.h
_OPEN, _FORK, _EXECVE, _KILL, _PTRACE, _SETUID, _SETRLIMIT = 2, 57, 59, 62, 101, 105, 160
_PTRACE_ATTACH = 16
# asm/unistd.h; the same on all architectures that are younger than they
_PIDFD_GETFD = 438
_PROCESS_VM_READV = {"x86_64": 310, "aarch64": 270}
_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def neighbours(warden: Warden, images: Path) -> Warden:
    """Two VMs, web01 and db01, with no sandbox and no filter of system calls but QEMU's."""
    set_policy(f'{ENFORCING}sandbox = "off"\nsystem_calls = "off"\n')
    for name in ("web01", "db01"):
        warden.started(name, disks=[Disk(raw(images / f"{name}.img"), format="raw")])
    return warden


def _read(path: Path) -> None:
    path.read_bytes()


def _list(path: Path) -> None:
    list(path.iterdir())


def _follow(path: Path) -> None:
    path.readlink()


_INSIDE: dict[str, Callable[[Path], None]] = {
    **dict.fromkeys(("environ", "maps", "mem", "auxv", "io"), _read),
    **dict.fromkeys(("fd", "fdinfo", "map_files"), _list),
    **dict.fromkeys(("cwd", "root", "exe"), _follow),
}


def test_one_vms_user_learns_nothing_of_anothers_process_from_within_it(
    neighbours: Warden,
) -> None:
    other, own = (Path(f"/proc/{neighbours.libvirt.pid(name)}") for name in ("db01", "web01"))
    for entry, look in _INSIDE.items():
        answer = as_user("vmw-web01", lambda e=entry, f=look: f(other / e))  # type: ignore[misc]
        assert answer == "PermissionError", entry
    assert as_user("vmw-web01", lambda: _read(own / "environ")) == "", (
        "else this would prove little"
    )


def _call(number: int, *arguments: int) -> None:
    given = [ctypes.c_long(argument) for argument in arguments]
    if _libc.syscall(ctypes.c_long(number), *given) == -1:
        raise OSError(ctypes.get_errno(), "")


def _read_memory(pid: int) -> None:
    class Iovec(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

    buffer = ctypes.create_string_buffer(8)
    here = Iovec(ctypes.addressof(buffer), 8)
    address = ctypes.addressof(here)
    _call(_PROCESS_VM_READV[os.uname().machine], pid, address, 1, address, 1, 0)


def _take_a_descriptor(pid: int) -> None:
    _call(_PIDFD_GETFD, os.pidfd_open(pid), 0, 0)


def _trace(pid: int) -> None:
    if _libc.ptrace(ctypes.c_long(_PTRACE_ATTACH), ctypes.c_long(pid), None, None) == -1:
        raise OSError(ctypes.get_errno(), "ptrace")


_ATTACKS: dict[str, Callable[[int], object]] = {
    "end it": lambda pid: os.kill(pid, 0),
    "limit it": lambda pid: resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0)),
    "see its limits": lambda pid: resource.prlimit(pid, resource.RLIMIT_NOFILE),
    "pin it": lambda pid: os.sched_setaffinity(pid, {0}),
    "slow it down": lambda pid: os.setpriority(os.PRIO_PROCESS, pid, 19),
    "trace it": _trace,
    "read its memory": _read_memory,
    "take a file of its": _take_a_descriptor,
}


def test_one_vms_user_does_nothing_to_anothers_process(neighbours: Warden) -> None:
    other = neighbours.libvirt.pid("db01")
    for name, attack in _ATTACKS.items():
        answer = as_user("vmw-web01", lambda a=attack: a(other))  # type: ignore[misc]
        assert answer == "PermissionError", name
    assert neighbours.status("db01")["breaches"] == []


@contextmanager
def _hidden_processes() -> Iterator[None]:
    run("mount", "-o", "remount,hidepid=invisible", "/proc")
    try:
        yield
    finally:
        run("mount", "-o", "remount,hidepid=off", "/proc")


def test_with_hidepid_it_does_not_even_see_it_and_all_works_as_before(neighbours: Warden) -> None:
    own, other = (Path(f"/proc/{neighbours.libvirt.pid(name)}") for name in ("web01", "db01"))
    # As docs/threat-model.md says; and else what follows would prove nothing.
    assert as_user("vmw-web01", lambda: _read(other / "cmdline")) == ""
    assert neighbours.status("web01")["process"]["others' processes"].startswith("seen")
    with _hidden_processes():
        _see_nobody_else(own, other)
        neighbours.started("web02")
        for name in ("web01", "db01", "web02"):
            standing = neighbours.status(name)
            assert standing["breaches"] == []
            assert standing["process"]["others' processes"] == "hidden"


def _see_nobody_else(own: Path, other: Path) -> None:
    def look_around() -> None:
        seen = {*Path("/proc").iterdir()}
        assert own in seen
        assert other not in seen

    assert as_user("vmw-web01", look_around) == ""
    for entry in ("cmdline", "status", "stat", "environ"):
        assert as_user("vmw-web01", lambda e=entry: _read(other / e)) == "FileNotFoundError"  # type: ignore[misc]


# From within


within = pytest.mark.skipif(not WORKS, reason="the system calls that are injected are x86-64's")
DENIED, NOT_PERMITTED = "Permission denied", "Operation not permitted"


@within
def test_a_qemu_that_was_taken_over_gets_no_further_than_its_user(
    neighbours: Warden, images: Path
) -> None:
    other = neighbours.libvirt.pid("db01")

    def answer(captive: Captive, number: int, *arguments: int | str) -> str:
        try:
            captive.call(number, *arguments)
        except OSError as error:
            return str(error.strerror)
        return ""

    with Captive(neighbours.libvirt.pid("web01")) as qemu:
        for path in (images / "db01.img", f"/proc/{other}/environ", f"/proc/{other}/mem"):
            assert answer(qemu, _OPEN, str(path), os.O_RDONLY) == DENIED, path
        assert answer(qemu, _OPEN, "/etc/shadow", os.O_RDONLY) == DENIED
        assert answer(qemu, _OPEN, str(images / "web01.img"), os.O_RDWR) == ""
        assert answer(qemu, _KILL, other, 0) == NOT_PERMITTED
        assert answer(qemu, _PTRACE, _PTRACE_ATTACH, other, 0, 0) == NOT_PERMITTED
        # Two words of all ones: no limit, soft and hard.
        unlimited = "\x7f" * 16
        assert answer(qemu, _SETRLIMIT, resource.RLIMIT_CORE, unlimited) == NOT_PERMITTED
    assert neighbours.status("web01")["breaches"] == []


@within
@pytest.mark.parametrize(
    ("number", "arguments"),
    [
        (_EXECVE, ("/bin/sh", 0, 0)),
        (_FORK, ()),
        (_SETUID, (0,)),
    ],
    ids=["execute a shell", "fork", "become root"],
)
def test_a_call_that_qemu_has_no_use_for_is_denied_or_its_end(
    warden: Warden, number: int, arguments: tuple[int | str, ...]
) -> None:
    """By QEMU's own seccomp filter, which libvirt asks for and the wrapper insists on.

    From QEMU 8.0 on, it answers EPERM to what would start a process, and ends at all else.
    """
    pid = warden.started("web01").pid
    with Captive(pid) as qemu, pytest.raises((PermissionError, ChildProcessError)) as denied:
        qemu.call(number, *arguments)
    if denied.type is PermissionError:
        assert number in (_EXECVE, _FORK)
        assert Path(f"/proc/{pid}/exe").readlink().name.startswith("qemu-system-")
        assert Path(f"/proc/{pid}/task/{pid}/children").read_text() == ""
    else:
        assert denied.match("SIGSYS")
        until(lambda: warden.libvirt.virsh("domstate", "web01").stdout.strip() == "shut off")

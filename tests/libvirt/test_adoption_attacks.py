# SPDX-License-Identifier: GPL-2.0-or-later
"""Who asks for a VM's user without being what libvirt starts as that VM.

The attacker runs as libvirt's own user, as an escaped VM does that nobody guards. In most tests
libvirt is even made to say that it is the process of the start that waits.
"""

from __future__ import annotations

import ctypes
import json
import os
import pwd
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.host.command import run
from tests.host.domain import Disk
from tests.host.images import qcow2
from tests.host.service import Service
from tests.libvirt.test_adoption import create
from tests.libvirt.warden import PATHS, Warden, as_user, until
from virtwarden.changes import GiveMade

LIBVIRTS_OWN = pwd.getpwnam("libvirt-qemu")
UUID = "00000000-0000-4000-8000-000000000001"
# <linux/sched.h>, <linux/prctl.h>, <linux/ptrace.h>
CLONE_NEWUSER, PR_SET_DUMPABLE = 0x10000000, 4
PTRACE_SEIZE = 0x4206
PIDFD_GETFD = 438  # on every architecture, as all calls that came after it
# <asm/unistd_64.h>: the number of connect(2), as /proc/PID/syscall has it.
CONNECT = "42"
LIBC = ctypes.CDLL(None, use_errno=True)

Answer = dict[str, Any]


def dumpable() -> None:
    """As libvirt's child is once it has executed a program."""
    assert LIBC.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0


def undumpable() -> None:
    assert LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0


def namespace() -> None:
    assert LIBC.unshare(CLONE_NEWUSER) == 0


def map_itself() -> None:
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {LIBVIRTS_OWN.pw_uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {LIBVIRTS_OWN.pw_gid} 1")


def second_thread() -> None:
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


def ask() -> Answer:
    """Ask to be adopted; empty where the service hangs up without a word."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(PATHS.adopt_socket))
        try:
            connection.sendall(b"\n")
            said = connection.makefile("rb").read()
        except ConnectionError:
            said = b""
    return dict(json.loads(said)) if said else {}


@contextmanager
def asker(*steps: Callable[[], object], asks: int = 1) -> Iterator[tuple[int, int, int]]:
    """A process of libvirt's own user that takes these steps and asks, when it is told to.

    Gives its pid, where to tell it, and where its answers come.
    """
    told, tell = os.pipe()
    heard, say = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(*[LIBVIRTS_OWN.pw_gid] * 3)
            os.setresuid(*[LIBVIRTS_OWN.pw_uid] * 3)
            os.read(told, 1)
            for step in steps:
                step()
            answers = [ask() for _ in range(asks)]
            uids = [Path("/proc/self/uid_map").read_text().split()]
            os.write(say, json.dumps([answers, uids]).encode())
        except BaseException as error:  # noqa: BLE001 - the child must not go on as a test
            os.write(say, json.dumps([repr(error)]).encode())
        finally:
            os._exit(0)
    os.close(told)
    os.close(say)
    try:
        yield child, tell, heard
    finally:
        os.close(tell)
        os.close(heard)
        os.kill(child, 9)
        os.waitpid(child, 0)


def answers(tell: int, heard: int) -> list[Any]:
    os.write(tell, b"\n")
    return list(json.loads(os.read(heard, 1 << 20)))


@pytest.fixture
def awaited(warden: Warden, service: Service, images: Path) -> Iterator[Callable[[int], None]]:
    """Have a start wait, for the user of a VM that runs, and for the process with this pid."""
    create(warden, "web01", Disk(qcow2(images / "web01.qcow2")))
    pid_file = PATHS.qemu_pid("fake")
    cell = PATHS.cell(UUID)

    def wait_for(pid: int) -> None:
        pid_file.write_text(str(pid))
        cell.mkdir(exist_ok=True)
        (cell / "ticket.json").write_text("{}")
        plan = {"name": "fake", "user": "vmw-web01", "number": "1", "changes": []}
        PATHS.adoption_plan(UUID).write_text(json.dumps(plan))
        (PATHS.waiting / UUID).write_text("own-user")

    yield wait_for
    pid_file.unlink(missing_ok=True)


HONEST = (undumpable, namespace)
QEMU = "/usr/bin/qemu-system-x86_64"


def checked(outcome: int) -> None:
    if outcome < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def trace(pid: int) -> None:
    checked(LIBC.ptrace(PTRACE_SEIZE, pid, 0, 0))


def open_memory(pid: int) -> None:
    os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR))


def enter_its_namespace(pid: int) -> None:
    checked(LIBC.setns(os.open(f"/proc/{pid}/ns/user", os.O_RDONLY), CLONE_NEWUSER))


def enter_by_a_pidfd(pid: int) -> None:
    checked(LIBC.setns(os.pidfd_open(pid), CLONE_NEWUSER))


def take_a_descriptor(pid: int) -> None:
    checked(LIBC.syscall(PIDFD_GETFD, os.pidfd_open(pid), 2, 0))


@pytest.mark.parametrize(
    "attack",
    [trace, open_memory, enter_its_namespace, enter_by_a_pidfd, take_a_descriptor],
)
def test_who_made_its_namespace_gets_nothing_of_a_vm(
    warden: Warden, service: Service, images: Path, attack: Callable[[int], None]
) -> None:
    """The namespace of an adopted QEMU belongs to libvirt's own user, whom others run as too."""
    create(warden, "web01", Disk(qcow2(images / "web01.qcow2")))
    pid = warden.qemu("web01").pid
    assert as_user("libvirt-qemu", lambda: attack(pid)) == "PermissionError"
    assert warden.status("web01")["breaches"] == []
    assert "group:kvm:--x" in run("getfacl", "-p", QEMU).stdout


def test_the_process_that_libvirt_starts_gets_its_user_once(
    awaited: Callable[[int], None],
) -> None:
    with asker(*HONEST, asks=2) as (pid, tell, heard):
        awaited(pid)
        (first, second), (ids,) = answers(tell, heard)
    uid = pwd.getpwnam("vmw-web01").pw_uid
    assert first["uid"] == uid
    assert [int(word) for word in ids] == [uid, uid, 1]
    assert second == {}


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ((undumpable,), "it has no user namespace of its own"),
        ((dumpable, namespace), "other processes of its user could steer it"),
        (
            (dumpable, namespace, map_itself, undumpable),
            "somebody is mapped into its user namespace",
        ),
        (
            (dumpable, namespace, map_itself, namespace, undumpable),
            "it has no user namespace of its own",
        ),
        ((undumpable, namespace, second_thread), "it has several threads"),
    ],
)
def test_a_process_that_somebody_else_could_steer_gets_none(
    awaited: Callable[[int], None], steps: tuple[Callable[[], None], ...], reason: str
) -> None:
    with asker(*steps) as (pid, tell, heard):
        awaited(pid)
        (answer,), (ids,) = answers(tell, heard)
    assert reason in answer["refusal"]
    assert str(pwd.getpwnam("vmw-web01").pw_uid) not in ids


def test_a_traced_process_gets_none(awaited: Callable[[int], None]) -> None:
    with asker(*HONEST) as (pid, tell, heard):
        awaited(pid)
        assert LIBC.ptrace(PTRACE_SEIZE, pid, None, None) == 0
        (answer,), _ = answers(tell, heard)
    assert "another process traces it" in answer["refusal"]


def test_another_process_than_libvirts_gets_none_while_a_start_waits(
    awaited: Callable[[int], None],
) -> None:
    with asker(*HONEST) as (_, tell, heard), asker(*HONEST) as (started, _, _):
        awaited(started)
        (answer,), (ids,) = answers(tell, heard)
    assert (answer, ids) == ({}, [])


def test_root_itself_is_not_made_a_vms_user(awaited: Callable[[int], None]) -> None:
    awaited(os.getpid())
    assert "its user is another" in ask()["refusal"]


def test_what_another_vm_put_among_libvirts_files_is_not_given_with_them(
    warden: Warden, service: Service, images: Path
) -> None:
    """It is libvirt's own user too, and has the directory until the start is adopted."""
    create(warden, "web01", Disk(qcow2(images / "web01.qcow2")))
    made = PATHS.libvirt_state / "domain-7-web01"
    made.mkdir()
    (made / "master-key.aes").touch()
    theirs = images / "theirs"
    theirs.touch()
    (made / "hard").hardlink_to(theirs)
    (made / "soft").symlink_to(theirs)
    (made / "roots").touch()
    for path in (made, made / "master-key.aes", theirs):
        os.chown(path, LIBVIRTS_OWN.pw_uid, LIBVIRTS_OWN.pw_gid)
    GiveMade("7-web01", "vmw-web01").apply(PATHS, {})
    assert (made.owner(), (made / "master-key.aes").owner()) == ("vmw-web01", "vmw-web01")
    assert (theirs.owner(), (made / "roots").owner()) == ("libvirt-qemu", "root")
    shutil.rmtree(made)


def test_who_holds_the_socket_keeps_no_start_from_its_user(
    warden: Warden, service: Service, images: Path
) -> None:
    held = [socket.socket(socket.AF_UNIX) for _ in range(300)]
    for connection in held:
        connection.connect(str(PATHS.adopt_socket))
    try:
        assert create(warden, "db01", Disk(qcow2(images / "db01.qcow2"))) >= 70000
    finally:
        for connection in held:
            connection.close()


def test_who_fills_the_sockets_queue_keeps_no_start_from_its_user(
    warden: Warden, service: Service, images: Path
) -> None:
    """More connect than the service accepts: here it accepts nobody until the wrapper waits."""
    disk = Disk(qcow2(images / "db01.qcow2"))
    held: list[socket.socket] = []
    started: list[int] = []
    starting = threading.Thread(target=lambda: started.append(create(warden, "db01", disk)))
    service.signal(signal.SIGSTOP)
    try:
        while _enters_the_queue(held):
            pass
        starting.start()
        until(lambda: _waits_to_connect("db01") or not starting.is_alive())
        service.signal(signal.SIGCONT)
        starting.join()
    finally:
        service.signal(signal.SIGCONT)
        for connection in held:
            connection.close()
    assert [uid >= 70000 for uid in started] == [True]


def _enters_the_queue(held: list[socket.socket]) -> bool:
    held.append(socket.socket(socket.AF_UNIX))
    held[-1].setblocking(False)
    try:
        held[-1].connect(str(PATHS.adopt_socket))
    except BlockingIOError:
        return False
    return True


def _waits_to_connect(name: str) -> bool:
    """Whether the process that libvirt starts as this domain is in connect(2)."""
    try:
        pid = int(PATHS.qemu_pid(name).read_text())
        return Path(f"/proc/{pid}/syscall").read_text().split()[0] == CONNECT
    except (OSError, ValueError):
        return False

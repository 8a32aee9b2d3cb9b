# SPDX-License-Identifier: GPL-2.0-or-later
"""The hook answered by the service: the same result, never both, whoever dies or lies."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn
from uuid import NAMESPACE_DNS, uuid5

import pytest

from tests.host.domain import Disk, Nic, Vnc, domain_xml
from tests.host.images import qcow2
from tests.host.service import Service
from tests.host.syslog import Syslog
from tests.libvirt.snapshots import snapshot
from tests.libvirt.warden import Warden
from virtwarden.changes import CreateUser, journal
from virtwarden.paths import Paths
from virtwarden.service import wire
from virtwarden.system import files, users

PATHS = Paths()
MAC = "52:54:00:00:00:01"
UUID = str(uuid5(NAMESPACE_DNS, "web01"))
ROOM = Path("/usr/share/virt-warden/virtwarden/hook.py")
SECONDS = 30


@pytest.fixture
def web01(warden: Warden, images: Path, bridge: str) -> str:
    """A domain with one of everything, that ran before."""
    disk = Disk(qcow2(images / "web01.qcow2"))
    warden.started("web01", disks=[disk], nics=[Nic(MAC, bridge)], vnc=Vnc())
    warden.libvirt.destroy("web01")
    return "web01"


@contextmanager
def no_hook_by_itself() -> Iterator[None]:
    """The installed hook cannot do its work by itself: what is done, the service does."""
    hidden = ROOM.with_suffix(".hidden")
    ROOM.rename(hidden)
    try:
        yield
    finally:
        hidden.rename(ROOM)


@contextmanager
def caught_in_start(
    warden: Warden, name: str, trap: AbstractContextManager[None]
) -> Iterator[list[int]]:
    """Start a domain that gets as far as the trap lets it; its exit code is there at last."""
    codes: list[int] = []

    def start() -> None:
        codes.append(warden.libvirt.virsh("start", name, check=False).returncode)

    thread = threading.Thread(target=start)
    try:
        with trap:
            thread.start()
            yield codes
    finally:
        thread.join()


def held(step: str) -> AbstractContextManager[None]:
    """What `prepare` or `start` needs in its middle: the claims, or the list of taps."""
    return files.locked(PATHS.claims if step == "prepare" else PATHS.filters)


def worker_at(service: Service, step: str) -> int:
    """Wait until a process of the service is blocked in a step; its pid.

    By then the journal has what it did before.
    """
    place = str(PATHS.claims if step == "prepare" else PATHS.filters)
    while True:
        for pid in service.children():
            if place in _open_files(pid):
                return pid
        os.sched_yield()


def hook_pid() -> int:
    """Wait until libvirt has called its hook, and that has begun."""
    while True:
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                if b"/etc/libvirt/hooks/qemu\0web01" in (directory / "cmdline").read_bytes():
                    return int(directory.name)
            except OSError:
                continue
        os.sched_yield()


def _open_files(pid: int) -> set[str]:
    try:
        return {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:
        return set()


def records() -> list[Any]:
    """What is done for the domain; the service may still be checking it, with the domain held."""
    with journal.locked(PATHS, UUID):
        return [(type(r.change).__name__, r.before) for r in journal.records(PATHS, UUID)]


def test_the_service_answers_all_of_a_domains_life(
    warden: Warden, web01: str, service: Service
) -> None:
    with no_hook_by_itself():
        warden.libvirt.start(web01)
        assert warden.status(web01)["breaches"] == []
        warden.libvirt.destroy(web01)
        assert records() == []


def test_both_ways_come_to_the_same(warden: Warden, web01: str, service: Service) -> None:
    def outcome() -> tuple[Any, ...]:
        warden.libvirt.start(web01)
        ticket = json.loads((PATHS.cell(UUID) / "ticket.json").read_text())
        # The tap is another one each time.
        done = [(kind, {**was, "taps": len(was.get("taps", []))}) for kind, was in records()]
        found = done, {**ticket, "vnc": len(ticket["vnc"])}, warden.status(web01)["breaches"]
        warden.libvirt.destroy(web01)
        return found

    answered = outcome()
    PATHS.hook_socket.rename(PATHS.hook_socket.with_suffix(".away"))
    by_itself = outcome()
    PATHS.hook_socket.with_suffix(".away").rename(PATHS.hook_socket)
    assert answered == by_itself
    assert answered[0]


def test_a_refusal_reads_the_same_from_both(
    warden: Warden, syslog: Syslog, service: Service, images: Path
) -> None:
    disk = qcow2(images / "web01.qcow2")
    warden.libvirt.define(domain_xml("web01", disks=[Disk(disk)]))
    syslog.wait_for("event=enrolled domain=web01 ", SECONDS)
    disk.unlink()
    answered = warden.refusal("web01")
    service.stop()
    assert answered == warden.refusal("web01")
    assert "it is not there" in answered


def test_no_call_imports_anything_in_the_service(warden: Warden, web01: str) -> None:
    """All is imported before; what an upgrade puts in place is not mixed with what runs."""
    program = """
import io, sys
from pathlib import Path
sys.path.insert(0, "/usr/share/virt-warden")
from virtwarden.paths import Paths
from virtwarden.service.warm import warm_up
warm_up(Paths())
from virtwarden import hook
before = set(sys.modules)
for op in ("prepare", "start", "started", "release"):
    xml = Path("/run/xml-of-" + op).read_bytes()
    code = hook.main(["web01", op], io.BytesIO(xml), io.BytesIO(), sys.stderr)
    assert code == 0, op
print(*sorted(set(sys.modules) - before))
"""
    save = Path("/etc/libvirt/hooks/qemu.d/save")
    save.parent.mkdir(exist_ok=True)
    save.write_text('#!/bin/sh\nexec cat >"/run/xml-of-$2"\n')
    save.chmod(0o755)
    try:
        warden.libvirt.start(web01)
        warden.libvirt.destroy(web01)
    finally:
        save.unlink()
        save.parent.rmdir()
    started = Path("/run/xml-of-started").read_bytes()
    tap = started.partition(b"<target dev='vnet")[2].partition(b"'")[0].decode()
    subprocess.run(["ip", "tuntap", "add", f"vnet{tap}", "mode", "tap"], check=True)
    try:
        done = subprocess.run(
            ["/usr/bin/python3", "-I", "-c", program], capture_output=True, text=True, check=False
        )
    finally:
        # This one outlives who made it; the release takes such away.
        subprocess.run(["ip", "link", "delete", f"vnet{tap}"], check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


class TestTheServiceHangs:
    def test_the_hook_does_it_by_itself_and_the_service_does_not_do_it_again(
        self, warden: Warden, web01: str, service: Service, syslog: Syslog
    ) -> None:
        service.signal(signal.SIGSTOP)
        try:
            warden.libvirt.start(web01)
            done = records()
            assert warden.status(web01)["breaches"] == []
        finally:
            service.signal(signal.SIGCONT)
        warden.libvirt.define(domain_xml("barrier"))
        syslog.wait_for("event=enrolled domain=barrier ", SECONDS)
        with no_hook_by_itself():  # the calls that it did not take came before this one
            warden.libvirt.start("barrier")
        assert records() == done
        assert warden.status(web01)["breaches"] == []


@pytest.mark.parametrize("step", ["prepare", "start"])
class TestSomebodyDiesInTheMiddle:
    def test_the_process_that_answers(
        self, warden: Warden, web01: str, service: Service, step: str
    ) -> None:
        with caught_in_start(warden, web01, held(step)) as codes:
            os.kill(worker_at(service, step), signal.SIGKILL)
        self._check_all_is_up_and_then_down(warden, web01, codes)

    def test_the_whole_service(
        self, warden: Warden, web01: str, service: Service, step: str
    ) -> None:
        with caught_in_start(warden, web01, held(step)) as codes:
            worker = worker_at(service, step)
            service.signal(signal.SIGKILL)
            service.wait()
            os.kill(worker, signal.SIGKILL)
        self._check_all_is_up_and_then_down(warden, web01, codes)

    def test_all_of_the_service_but_the_process_that_answers(
        self, warden: Warden, web01: str, service: Service, step: str
    ) -> None:
        with caught_in_start(warden, web01, held(step)) as codes:
            worker_at(service, step)
            service.signal(signal.SIGKILL)
            service.wait()
        self._check_all_is_up_and_then_down(warden, web01, codes)

    def test_the_hook(
        self, warden: Warden, web01: str, service: Service, images: Path, step: str
    ) -> None:
        before = snapshot([images, PATHS.run])
        with caught_in_start(warden, web01, held(step)) as codes:
            worker_at(service, step)
            os.kill(hook_pid(), signal.SIGKILL)
        assert codes != [0]
        warden.libvirt.virsh("version")
        assert records() == []
        after = snapshot([images, PATHS.run])
        assert after == before

    def _check_all_is_up_and_then_down(self, warden: Warden, name: str, codes: list[int]) -> None:
        assert codes == [0]
        assert warden.status(name)["breaches"] == []
        warden.libvirt.destroy(name)
        assert records() == []


@pytest.mark.parametrize("death", ["os.kill(os.getpid(), 9)", "sys.exit(1)"])
def test_a_vm_runs_on_when_who_looks_at_it_dies(warden: Warden, web01: str, death: str) -> None:
    """libvirtd comes back before the service does, and memory is short: no VM ends of that."""
    warden.libvirt.start(web01)
    pid = warden.libvirt.pid(web01)
    whole = ROOM.read_text()
    ROOM.write_text(f"import os, sys; open('/run/looked', 'w'); {death}")
    try:
        warden.libvirt.restart()
    finally:
        ROOM.write_text(whole)
    assert Path("/run/looked").exists()
    Path("/run/looked").unlink()
    assert warden.libvirt.pid(web01) == pid
    assert warden.libvirt.virsh("domstate", web01).stdout.strip() == "running"


def test_a_call_whose_hook_died_before_its_turn_is_not_acted_on(
    warden: Warden, web01: str, service: Service, syslog: Syslog
) -> None:
    """libvirt may have gone on with the domain by then."""
    with caught_in_start(warden, web01, journal.locked(PATHS, UUID)) as codes:
        hook = hook_pid()
        while str(PATHS.domain_state(UUID)) not in _open_files_of(service.children()):
            os.sched_yield()
        os.kill(hook, signal.SIGKILL)
        # libvirt's next hook, which undoes, waits for the journal as well.
        while hook_pid() == hook:
            os.sched_yield()
    assert codes != [0]
    assert not any("event=undone" in line for line in syslog.lines())  # nor was there anything to
    assert records() == []


def _open_files_of(pids: list[int]) -> set[str]:
    return {name for pid in pids for name in _open_files(pid)}


def test_a_service_that_is_told_to_stop_ends_what_it_is_at(
    warden: Warden, web01: str, service: Service
) -> None:
    with caught_in_start(warden, web01, held("prepare")) as codes:
        worker = worker_at(service, "prepare")
        service.signal(signal.SIGTERM)
        while PATHS.hook_socket.exists() or service.children() != [worker]:
            os.sched_yield()
    assert service.wait() == 0
    assert codes == [0]
    assert warden.status(web01)["breaches"] == []


class TestStrangers:
    def test_nobody_but_root_can_call_the_service(self, service: Service, syslog: Syslog) -> None:
        assert PATHS.hook_socket.stat().st_mode & 0o777 == 0o600
        assert _as_nobody(_connect) == "PermissionError"
        PATHS.hook_socket.chmod(0o666)
        assert _as_nobody(_call) == "nothing was offered"
        syslog.wait_for("event=stranger uid=65534")

    def test_a_socket_of_somebody_elses_is_not_believed(self, warden: Warden) -> None:
        """It would say yes to every start."""
        fake = Path("/run/fake/hook.sock")
        fake.parent.mkdir()
        os.chown(fake.parent, 65534, 65534)
        listening = os.pipe()
        liar = os.fork()
        if liar == 0:
            _lie_as_nobody(fake, listening[1])
        try:
            os.read(listening[0], 1)
            fake.rename(PATHS.hook_socket)
            warden.libvirt.define(domain_xml("web01"))
            assert "it is not enrolled" in warden.refusal("web01")
        finally:
            os.kill(liar, signal.SIGKILL)
            os.waitpid(liar, 0)
            PATHS.hook_socket.unlink()

    def test_garbage_does_not_trouble_the_service(
        self, warden: Warden, web01: str, service: Service
    ) -> None:
        for garbage in (b"", b"\0", b"\xff" * 70_000, b"GET / HTTP/1.1\r\n\r\n"):
            with socket.socket(socket.AF_UNIX) as visitor:
                visitor.connect(str(PATHS.hook_socket))
                visitor.sendall(garbage)
                visitor.shutdown(socket.SHUT_WR)
                with suppress(ConnectionResetError):
                    assert visitor.recv(1) == b""
        with no_hook_by_itself():
            warden.libvirt.start(web01)


def _lie_as_nobody(place: Path, listening: int) -> NoReturn:
    """Tell every hook that all is well."""
    try:
        os.setresuid(65534, 65534, 65534)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(place))
            listener.listen()
            os.write(listening, b".")
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    wire.send(connection, wire.OFFER)
                    connection.recv(65536)
                    wire.send(connection, b"0", b"", b"")
    finally:
        os._exit(1)


def _connect() -> str:
    with socket.socket(socket.AF_UNIX) as visitor:
        visitor.connect(str(PATHS.hook_socket))
    return ""


def _call() -> str:
    with socket.socket(socket.AF_UNIX) as visitor:
        visitor.connect(str(PATHS.hook_socket))
        try:
            wire.send(visitor, wire.VERSION, b"web01\0prepare", b"<domain/>")
            return wire.receive(visitor).decode()
        except (OSError, EOFError):
            return "nothing was offered"


def _as_nobody(act: Any) -> str:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = "nothing came of it"
        try:
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            said = act()
        except OSError as error:
            said = type(error).__name__
        finally:
            os.write(writer, said.encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        os.waitpid(child, 0)
        return pipe.read()


def test_many_starts_at_once_lose_nothing(warden: Warden, images: Path, service: Service) -> None:
    names = [f"many{number}" for number in range(8)]
    for name in names:
        warden.enrolled(name, disks=[Disk(qcow2(images / f"{name}.qcow2"))])
    threads = [threading.Thread(target=warden.libvirt.start, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [warden.status(name)["breaches"] for name in names] == [[]] * len(names)
    accounts = [users.account(f"vmw-{name}") for name in names]
    assert len({account.uid for account in accounts if account}) == len(names)
    for name in names:
        uuid = str(uuid5(NAMESPACE_DNS, name))
        (made,) = journal.records(PATHS, uuid, CreateUser.scope)
        assert isinstance(made.change, CreateUser)

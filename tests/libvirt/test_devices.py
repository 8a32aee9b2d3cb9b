# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks and devices as admins have them: they start, or the refusal says what lets them start."""

from __future__ import annotations

import os
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.host.command import run
from tests.host.domain import Disk, domain_xml
from tests.host.images import qcow2
from tests.libvirt.warden import ENFORCING, Warden, set_policy, until

Serve = Callable[[socket.socket], None]
EVERYBODYS = 0o1777
# docs/interop/vhost-user.rst in QEMU's source
_GET_FEATURES, _GET_VRING_BASE, _REPLY = 1, 11, 5
_VERSION_1 = 1 << 32


def of_all(keys: str) -> str:
    return f'{ENFORCING}[[domain]]\nmatch = "*"\n{keys}\n'


@contextmanager
def in_background(work: Callable[[], None]) -> Iterator[None]:
    def quietly() -> None:
        with suppress(OSError):  # the other end is gone, or this one was closed
            work()

    thread = threading.Thread(target=quietly, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(timeout=20)
        assert not thread.is_alive()


@contextmanager
def served(path: Path, serve: Serve) -> Iterator[None]:
    """Somebody answers the first who connects to this socket."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def work() -> None:
            peer, _ = listener.accept()
            with peer:
                serve(peer)

        try:
            with in_background(work):
                try:
                    yield
                finally:
                    listener.shutdown(socket.SHUT_RDWR)  # who never came is waited for no more
        finally:
            path.unlink()


def shares_memory(peer: socket.socket) -> None:
    """An ivshmem-server with one peer (docs/specs/ivshmem-spec.txt in QEMU's source)."""
    memory, interrupt = os.memfd_create("shared"), os.eventfd(0)
    os.ftruncate(memory, 4 << 20)
    for number, handles in ((0, []), (0, []), (-1, [memory]), (0, [interrupt])):
        socket.send_fds(peer, [struct.pack("<q", number)], handles)
    peer.recv(1)
    os.close(memory)
    os.close(interrupt)


def switches(peer: socket.socket) -> None:
    """A switch for vhost-user with no more than QEMU needs to start."""
    while len(head := peer.recv(12, socket.MSG_WAITALL)) == 12:
        request, _, size = struct.unpack("<III", head)
        if size:
            peer.recv(size, socket.MSG_WAITALL)
        answers = {_GET_FEATURES: _VERSION_1, _GET_VRING_BASE: 0}
        if request in answers:
            peer.sendall(struct.pack("<IIIQ", request, _REPLY, 8, answers[request]))


def test_shared_memory_with_the_socket_that_libvirt_chooses(warden: Warden) -> None:
    set_policy(of_all('allow = ["shmem shared"]'))
    device = (
        "<shmem name='shared'><model type='ivshmem-doorbell'/><server/><msi vectors='1'/></shmem>"
    )
    with served(Path("/var/lib/libvirt/shmem-shared-sock"), shares_memory):
        Path("/var/lib/libvirt/shmem-shared-sock").chmod(0o666)
        warden.started("web01", extra_devices=device)
        assert warden.status("web01")["breaches"] == []
        warden.libvirt.destroy("web01")


def vhost_user(path: Path, mode: str) -> str:
    nic = (
        "<interface type='vhostuser'><mac address='52:54:00:00:00:01'/>"
        f"<source type='unix' path='{path}' mode='{mode}'/><model type='virtio'/></interface>"
    )
    shared = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
    return domain_xml("web01", extra_devices=nic).replace("</memory>", f"</memory>{shared}")


@pytest.fixture
def switch() -> Iterator[Path]:
    """A switch's directory, in which it and VMs make their sockets."""
    directory = Path("/run/switch")
    directory.mkdir()
    directory.chmod(EVERYBODYS)
    yield directory / "vhost.sock"
    (directory / "vhost.sock").unlink(missing_ok=True)
    directory.rmdir()


@pytest.mark.parametrize("mode", ["client", "server"])
def test_a_vhost_user_nic_starts_where_the_policy_lets_nics_be_untapped(
    warden: Warden, switch: Path, mode: str
) -> None:
    warden.libvirt.define(vhost_user(switch, mode))
    warden.command("enrol", "web01")
    assert 'untapped = "allow"' in warden.refusal("web01")
    set_policy(of_all('network.untapped = "allow"'))

    def connects() -> None:
        until(switch.exists)
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(switch))
            switches(peer)

    with served(switch, switches) if mode == "client" else in_background(connects):
        if mode == "client":
            switch.chmod(0o666)
        warden.libvirt.start("web01")
        assert warden.status("web01")["breaches"] == []
        warden.libvirt.destroy("web01")


def test_a_transient_disk_starts_in_the_directory_that_its_refusal_names(
    warden: Warden, images: Path
) -> None:
    disk = qcow2(images / "kiosk.qcow2")
    before = disk.read_bytes()
    xml = domain_xml("kiosk", disks=[Disk(disk)]).replace("</disk>", "<transient/></disk>")
    warden.libvirt.define(xml)
    said = warden.command("enrol", "kiosk")
    line = warden.refusal("kiosk")
    assert line.partition("; fix: ")[0].split(": ", 1)[1] in said.stdout
    (directories,) = re.findall(r"directories = \[[^]]*\]", line)
    assert str(images) in directories
    set_policy(of_all(f"[domain.landlock]\n{directories}"))
    for _ in range(2):
        warden.libvirt.start("kiosk")
        assert warden.status("kiosk")["breaches"] == []
        assert len([*images.iterdir()]) == 2
        warden.libvirt.destroy("kiosk")
        assert [*images.iterdir()] == [disk]
    assert disk.read_bytes() == before


def test_a_console_may_listen_on_a_name_of_this_host(warden: Warden) -> None:
    display = (
        "<graphics type='vnc' port='-1' autoport='yes'>"
        "<listen type='address' address='localhost'/></graphics>"
    )
    warden.started("web01", extra_devices=display)
    assert warden.status("web01")["breaches"] == []
    listening = run("ss", "-Hltn", f"sport = {warden.vnc_port('web01')}").stdout.split("\n")
    addresses = {line.split()[3].rpartition(":")[0] for line in listening if line}
    assert addresses
    assert addresses <= {"127.0.0.1", "[::1]"}


@pytest.mark.parametrize(
    "description",
    [
        '{"driver":"qcow2","file":{"driver":"file","filename":"BASE"}}',
        '{"file":{"driver":"file","filename":"BASE"}}',
        '{"file.filename":"BASE"}',
        '{"driver":"qcow2","file.driver":"file","file.filename":"BASE"}',
    ],
    ids=["nested", "without a format", "short", "flat"],
)
def test_a_base_whose_name_is_a_description_is_spelled_out(
    warden: Warden, images: Path, description: str
) -> None:
    base, overlay = qcow2(images / "base.qcow2"), images / "web01.qcow2"
    name = f"json:{description.replace('BASE', str(base))}"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", name, str(overlay))
    warden.started("web01", disks=[Disk(overlay)])
    assert f"<source file='{base}'" in warden.libvirt.virsh("dumpxml", "web01").stdout
    assert warden.status("web01")["breaches"] == []

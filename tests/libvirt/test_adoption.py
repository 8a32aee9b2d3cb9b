# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts that nobody enrolled: each VM gets its own user all the same."""

from __future__ import annotations

import os
import pwd
import shlex
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.host.command import CommandFailedError
from tests.host.domain import Disk, Nic, Vnc, domain_xml
from tests.host.images import qcow2, raw
from tests.host.service import Service
from tests.host.syslog import Syslog
from tests.libvirt.grabber import grabber, was_opened
from tests.libvirt.warden import (
    ENFORCING,
    LEFT_ALONE,
    PATHS,
    Warden,
    as_user,
    owner,
    set_policy,
    until,
)

LIBVIRTS_OWN = pwd.getpwnam("libvirt-qemu")
LIBVIRTS_IDS = (LIBVIRTS_OWN.pw_uid, LIBVIRTS_OWN.pw_gid)

_LOGGED = "<serial type='pty'><log file='{0}'/></serial>"
_FILE = "<serial type='file'><source path='{0}'/></serial>"


def xml(name: str, *disks: Disk, **more: Any) -> str:
    """A domain whose emulator libvirt chooses."""
    return domain_xml(name, disks=disks, emulator=None, **more)


def create(warden: Warden, name: str, *disks: Disk, **more: Any) -> int:
    """Create a domain that libvirt forgets when it stops; the uid of its QEMU."""
    warden.libvirt.virsh("create", "/dev/stdin", stdin=xml(name, *disks, **more))
    uids = {*warden.qemu(name).uids}
    assert len(uids) == 1
    return uids.pop()


def refused(warden: Warden, name: str, *disks: Disk, **more: Any) -> str:
    """Create a domain that is refused; what the admin reads."""
    with pytest.raises(CommandFailedError) as refusal:
        create(warden, name, *disks, **more)
    return str(refusal.value)


def ask() -> bytes:
    """Ask to be adopted; what the service says."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(PATHS.adopt_socket))
        connection.settimeout(10)
        try:
            connection.sendall(b"\n")
            return connection.recv(4096)
        except ConnectionError:
            return b""


def test_a_domain_that_is_only_created_runs_as_its_own_user_and_keeps_every_promise(
    warden: Warden, service: Service, images: Path, bridge: str
) -> None:
    image = qcow2(images / "web01.qcow2")
    before = owner(image)
    uid = create(warden, "web01", Disk(image), nics=[Nic("52:54:00:00:00:01", bridge)], vnc=Vnc())
    assert uid >= 70000
    assert owner(image) == f"{uid}:{uid} 0600"
    status = warden.status("web01")
    assert status["breaches"] == []
    assert (status["adopted"], status["enrolled"], status["uid"]) == (True, False, uid)
    assert "zones" in status["guards"]
    qemu = warden.qemu("web01")
    assert (qemu.capabilities, qemu.no_new_privileges, qemu.seccomp) == (0, True, True)
    warden.libvirt.destroy("web01")
    until(lambda: owner(image) == before)


@pytest.mark.parametrize("serial", [_LOGGED, _FILE], ids=["log", "file"])
def test_a_serial_ports_log_which_virtlogd_has_open_already_keeps_no_domain_from_starting(
    warden: Warden, service: Service, images: Path, serial: str
) -> None:
    log = images / "serial.log"
    create(warden, "web01", Disk(qcow2(images / "web01.qcow2")), extra_devices=serial.format(log))
    assert log.exists()
    assert warden.status("web01")["breaches"] == []


def test_two_adopted_domains_cannot_open_each_others_files(
    warden: Warden, service: Service, images: Path
) -> None:
    first, second = (qcow2(images / f"{name}.qcow2", mode=0o644) for name in ("web01", "db01"))
    create(warden, "web01", Disk(first))
    create(warden, "db01", Disk(second))
    assert as_user("vmw-web01", lambda: second.open("rb")) == "PermissionError"
    assert as_user("vmw-db01", lambda: first.open("rb")) == "PermissionError"
    assert as_user("vmw-web01", lambda: first.open("r+b")) == ""


def test_a_base_that_libvirt_gave_away_is_roots_before_qemu_opens_it(
    warden: Warden, service: Service, images: Path
) -> None:
    base = qcow2(images / "base.qcow2")
    for name in ("web01", "db01"):
        create(warden, name, Disk(qcow2(images / f"{name}.qcow2", backing=base)))
        assert base.stat().st_uid == 0
        assert as_user(f"vmw-{name}", lambda: base.open("rb")) == ""
        assert as_user(f"vmw-{name}", lambda: base.open("r+b")) == "PermissionError"
    for name in ("web01", "db01"):
        assert warden.status(name)["breaches"] == []


def test_two_adopted_domains_write_a_disk_that_both_share(
    warden: Warden, service: Service, images: Path
) -> None:
    shared = raw(images / "quorum.img")
    for name in ("web01", "db01"):
        create(warden, name, Disk(shared, format="raw", shareable=True))
    assert shared.stat().st_uid == 0
    for name in ("web01", "db01"):
        assert as_user(f"vmw-{name}", lambda: shared.open("r+b")) == ""
        assert warden.status(name)["breaches"] == []


def test_defined_and_started_at_once_it_runs_in_its_cell_each_time(
    warden: Warden, service: Service, images: Path
) -> None:
    image = qcow2(images / "web01.qcow2")
    for _ in range(10):
        warden.libvirt.define(xml("web01", Disk(image)))
        warden.libvirt.start("web01")
        assert {*warden.qemu("web01").uids} == {image.stat().st_uid}
        assert image.stat().st_uid >= 70000
        assert warden.status("web01")["breaches"] == []
        warden.libvirt.destroy("web01")
        warden.libvirt.undefine("web01")


def test_the_user_of_an_adopted_run_is_the_one_it_is_enrolled_with(
    warden: Warden, service: Service, images: Path, syslog: Syslog
) -> None:
    service.signal(19)  # the first start comes before the service has heard of the domain
    image = qcow2(images / "web01.qcow2")
    warden.libvirt.define(xml("web01", Disk(image)))
    service.signal(18)
    syslog.wait_for("event=enrolled domain=web01", timeout=20)
    warden.libvirt.start("web01")
    uid = warden.qemu("web01").uids[0]
    warden.libvirt.destroy("web01")
    warden.libvirt.start("web01")
    assert warden.qemu("web01").uids[0] == uid
    assert not warden.status("web01")["adopted"]


def test_a_transient_domains_user_goes_with_it(
    warden: Warden, service: Service, images: Path, syslog: Syslog
) -> None:
    create(warden, "web01", Disk(qcow2(images / "web01.qcow2")))
    warden.libvirt.destroy("web01")
    syslog.wait_for("event=forgotten", timeout=20)
    with pytest.raises(KeyError):
        pwd.getpwnam("vmw-web01")


def test_an_adopted_domain_goes_on_when_libvirtd_comes_back(
    warden: Warden, service: Service, images: Path
) -> None:
    create(warden, "web01", Disk(qcow2(images / "web01.qcow2")))
    warden.libvirt.restart()
    assert warden.status("web01")["breaches"] == []


def test_without_the_service_the_refusal_says_a_way_that_can_be_followed(
    warden: Warden, images: Path, tmp_path: Path
) -> None:
    disk = Disk(qcow2(images / "web01.qcow2"))
    said = refused(warden, "web01", disk)
    assert "it is not enrolled" in said
    assert "virt-warden.service, which would give it one, does not run" in said
    assert "virsh create what this prints: virt-warden enrol --xml FILE" in said
    file = tmp_path / "web01.xml"
    file.write_text(xml("web01", disk))
    enrolled = warden.command("enrol", "--xml", str(file)).stdout
    warden.libvirt.virsh("create", "/dev/stdin", stdin=enrolled)
    assert {*warden.qemu("web01").uids} == {Path(disk.path).stat().st_uid}
    assert warden.status("web01")["breaches"] == []


@contextmanager
def of_the_host() -> Iterator[tuple[Path, Path]]:
    """A device and a pair of pipes of this host. QEMU has no /dev of its own here (qemu.conf)."""
    device, pipe = Path("/dev/warden-tests-tty"), Path("/run/warden-tests.pipe")
    ends = [Path(f"{pipe}.{end}") for end in ("in", "out")]
    os.mknod(device, stat.S_IFCHR | 0o660, os.makedev(1, 3))
    for end in ends:
        os.mkfifo(end, 0o600)
    try:
        yield device, pipe
    finally:
        for path in (device, *ends):
            path.unlink()


def test_an_adopted_domain_opens_what_of_the_host_the_policy_allows_it(
    warden: Warden, service: Service, images: Path
) -> None:
    with of_the_host() as (device, pipe):
        files = (device, Path(f"{pipe}.in"), Path(f"{pipe}.out"))
        before = [*map(owner, files)]
        allow = f'allow = ["device {device}", "file {pipe}"]'
        set_policy(f'{ENFORCING}[[domain]]\nmatch = "web01"\n{allow}\n')
        serial = "".join(
            f"<serial type='{kind}'><source path='{path}'/></serial>"
            for kind, path in (("dev", device), ("pipe", pipe))
        )
        uid = create(warden, "web01", Disk(qcow2(images / "web01.qcow2")), extra_devices=serial)
        assert {path.stat().st_uid for path in files} == {uid}
        assert warden.status("web01")["breaches"] == []
        warden.libvirt.destroy("web01")
        until(lambda: [*map(owner, files)] == before)


def test_one_that_is_only_created_hears_every_reason_and_no_command_for_another(
    warden: Warden, service: Service, images: Path
) -> None:
    anywhere = Vnc(listen="0.0.0.0")  # noqa: S104
    said = refused(warden, "web01", Disk(images / "gone.qcow2", format="raw"), vnc=anywhere)
    assert "gone.qcow2" in said
    assert "and also: VNC would listen on 0.0.0.0" in said
    for command in ("virsh edit", "explain", "virt-warden enrol web01"):
        assert command not in said


def test_one_that_is_defined_hears_the_commands_of_a_defined_one(
    warden: Warden, images: Path
) -> None:
    for name in ("web01", "R&D"):
        warden.libvirt.define(xml(name, Disk(qcow2(images / f"{name}.qcow2"))))
        assert f"virt-warden enrol {shlex.quote(name)}" in warden.refusal(name)


def test_without_the_service_a_permissive_domain_starts_as_libvirts_own_user(
    warden: Warden, images: Path
) -> None:
    set_policy(f'{ENFORCING}mode = "permissive"\n')
    uid = create(warden, "web01", Disk(qcow2(images / "web01.qcow2")))
    assert uid == LIBVIRTS_OWN.pw_uid


def test_an_unmanaged_domain_starts_as_it_would_without_us(warden: Warden, images: Path) -> None:
    set_policy(LEFT_ALONE)
    uid = create(warden, "web01", Disk(qcow2(images / "web01.qcow2")))
    assert uid == LIBVIRTS_OWN.pw_uid


def test_a_disabled_domain_starts_as_it_would_without_us(
    warden: Warden, service: Service, images: Path
) -> None:
    set_policy(f'{ENFORCING}mode = "disabled"\n')
    uid = create(warden, "web01", Disk(qcow2(images / "web01.qcow2")))
    assert uid == LIBVIRTS_OWN.pw_uid


def test_who_is_not_started_by_libvirt_gets_no_user(
    warden: Warden, service: Service, images: Path
) -> None:
    """As root, as libvirt's own user, and with a start that waits: its pid is not theirs."""
    create(warden, "web01", Disk(qcow2(images / "web01.qcow2")))
    assert ask() == b""
    uuid = warden.status("web01")["uuid"]
    PATHS.adoption_plan(uuid).write_text(
        '{"name": "web01", "user": "vmw-web01", "number": "1", "changes": []}'
    )
    (PATHS.waiting / uuid).write_text("own-user")
    assert ask() == b""


@pytest.mark.parametrize("mode", ["rb", "r+b"])
def test_a_disk_that_somebody_opened_meanwhile_is_not_given_to_a_vm(
    warden: Warden, service: Service, images: Path, mode: str
) -> None:
    image = qcow2(images / "web01.qcow2")
    with grabber(LIBVIRTS_IDS, image, mode) as grabbing:
        said = refused(warden, "web01", Disk(image))
        assert was_opened(grabbing)
    assert f"somebody else has {image} open" in said
    assert "kill " in said
    until(lambda: image.stat().st_uid == 0)
    create(warden, "web01", Disk(image))


def test_a_base_that_somebody_may_write_is_not_given_to_a_vm(
    warden: Warden, service: Service, images: Path
) -> None:
    base = qcow2(images / "base.qcow2")
    image = qcow2(images / "web01.qcow2", backing=base)
    with grabber(LIBVIRTS_IDS, base, "r+b") as grabbing:
        said = refused(warden, "web01", Disk(image))
        assert was_opened(grabbing)
    assert f"somebody else has {base} open" in said
    until(lambda: image.stat().st_uid == 0)
    create(warden, "web01", Disk(image))


def test_a_saved_domain_comes_back_with_its_user(
    warden: Warden, service: Service, images: Path
) -> None:
    image = qcow2(images / "web01.qcow2")
    uid = create(warden, "web01", Disk(image))
    saved = images / "web01.save"
    warden.libvirt.virsh("save", "web01", str(saved))
    warden.libvirt.virsh("restore", str(saved))
    assert {*warden.qemu("web01").uids} == {image.stat().st_uid}
    assert image.stat().st_uid >= 70000
    assert warden.status("web01")["breaches"] == []
    assert uid

# SPDX-License-Identifier: GPL-2.0-or-later
"""The emulated TPM: what a swtpm that was taken over reaches, and that an honest one works."""

from __future__ import annotations

import errno
import json
import os
import pwd
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.host.captive import WORKS, Captive
from tests.host.command import run
from tests.host.domain import Disk, domain_xml
from tests.host.images import qcow2
from tests.libvirt.warden import LEFT_ALONE, PATHS, Warden, set_policy
from virtwarden.system import process

TPM = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
SOCKETS = Path("/run/libvirt/qemu/swtpm")
HELPERS = ("dbus", "passt", "slirp", "swtpm")
WITH_TPM = {"machine": "q35", "extra_devices": TPM}
# x86-64's numbers.
OPENAT, SOCKET, CONNECT, BIND, UNLINK, KILL = 257, 41, 42, 49, 87, 62
HERE = -100  # AT_FDCWD


def swtpm(warden: Warden, name: str) -> process.Process:
    """The swtpm of a running VM."""
    number = warden.libvirt.virsh("domid", name).stdout.strip()
    return process.read(int((SOCKETS / f"{number}-{name}-swtpm.pid").read_text()))


def socket_of(warden: Warden, name: str) -> Path:
    number = warden.libvirt.virsh("domid", name).stdout.strip()
    return SOCKETS / f"{number}-{name}-swtpm.sock"


def state(warden: Warden, name: str) -> Path:
    """The file in which a VM's TPM keeps what it knows."""
    uuid = warden.libvirt.virsh("domuuid", name).stdout.strip()
    return PATHS.tpm_states / uuid / "tpm2" / "tpm2-00.permall"


def log(name: str) -> Path:
    return PATHS.tpm_logs / f"{name}-swtpm.log"


def opens(captive: Captive, path: Path, flags: int) -> int:
    """How opening a file goes in the process; 0 where it is opened."""
    try:
        captive.call(OPENAT, HERE, str(path), flags, 0o600)
    except OSError as error:
        return error.errno or -1
    return 0


def calls_socket(captive: Captive, number: int, path: Path) -> int:
    """The same for connecting to a socket there, or for making one."""
    fd = captive.call(SOCKET, socket.AF_UNIX, socket.SOCK_STREAM, 0)
    address = struct.pack("=H", socket.AF_UNIX).decode() + str(path)
    try:
        captive.call(number, fd, address, len(address) + 1)
    except OSError as error:
        return error.errno or -1
    return 0


@contextmanager
def taken_over(pid: int) -> Iterator[Captive]:
    if not WORKS:
        pytest.skip("x86-64's system calls")
    with Captive(pid) as captive:
        yield captive


def is_confined(found: process.Process) -> bool:
    return any(word.startswith("type=unixio,fd=") for word in found.arguments)


@pytest.fixture
def two(warden: Warden) -> Warden:
    """Two VMs with a TPM each."""
    for name in ("web01", "db01"):
        warden.started(name, **WITH_TPM)
    return warden


class TestTakenOver:
    """swtpm itself makes the system calls, as its VM's guest would have it do."""

    def test_it_reaches_its_own_state_and_no_other_vms(self, two: Warden) -> None:
        own, other = state(two, "web01"), state(two, "db01")
        with taken_over(swtpm(two, "web01").pid) as captive:
            assert opens(captive, own, os.O_RDWR) == 0
            assert opens(captive, own.with_name("new"), os.O_WRONLY | os.O_CREAT) == 0
            assert opens(captive, log("web01"), os.O_WRONLY | os.O_APPEND) == 0
            for path in (other, other.parent, other.parent.parent):
                assert opens(captive, path, os.O_RDONLY) == errno.EACCES
            assert opens(captive, other, os.O_WRONLY) == errno.EACCES
            assert opens(captive, other.with_name("new"), os.O_CREAT) == errno.EACCES
            assert opens(captive, log("db01"), os.O_WRONLY) == errno.EACCES
            # Where the host keeps the key that signs all TPMs' certificates.
            assert opens(captive, Path("/var/lib/swtpm-localca"), os.O_RDONLY) == errno.EACCES

    def test_it_reaches_no_other_tpms_socket_and_takes_no_place_of_one(self, two: Warden) -> None:
        other = socket_of(two, "db01")
        with taken_over(swtpm(two, "web01").pid) as captive:
            assert calls_socket(captive, CONNECT, other) == errno.EACCES
            assert calls_socket(captive, BIND, SOCKETS / "99-vm-swtpm.sock") == errno.EACCES
            with pytest.raises(PermissionError):
                captive.call(UNLINK, str(other))
            with pytest.raises(PermissionError):
                captive.call(UNLINK, str(socket_of(two, "web01")))
        assert other.is_socket()

    def test_one_that_is_not_confined_reaches_all_of_it(self, warden: Warden) -> None:
        """The attack is real: libvirt's own swtpms have one user."""
        set_policy(LEFT_ALONE)
        for name in ("web01", "db01"):
            warden.libvirt.define(domain_xml(name, **WITH_TPM))
            warden.libvirt.start(name)
        found = swtpm(warden, "web01")
        assert not is_confined(found)
        with taken_over(found.pid) as captive:
            assert opens(captive, state(warden, "db01"), os.O_RDWR) == 0
            assert calls_socket(captive, BIND, SOCKETS / "99-vm-swtpm.sock") == 0
        (SOCKETS / "99-vm-swtpm.sock").unlink()


class TestHonest:
    def test_it_has_its_state_again_at_the_next_start(self, warden: Warden) -> None:
        warden.started("web01", **WITH_TPM)
        assert is_confined(swtpm(warden, "web01"))
        assert warden.status("web01")["breaches"] == []
        said = log("web01").read_text()
        warden.libvirt.destroy("web01")
        assert not [*SOCKETS.iterdir()]
        assert not [*PATHS.tpm_notes.iterdir()]
        warden.libvirt.start("web01")
        assert is_confined(swtpm(warden, "web01"))
        assert state(warden, "web01").is_file()
        later = log("web01").read_text().removeprefix(said)
        assert "manufacturing" not in later
        assert "rror" not in later

    def test_saved_memory_has_the_tpm_in_it(self, warden: Warden) -> None:
        warden.started("web01", **WITH_TPM)
        warden.libvirt.virsh("managedsave", "web01")
        warden.libvirt.start("web01")
        assert is_confined(swtpm(warden, "web01"))
        assert warden.libvirt.virsh("domstate", "web01").stdout.strip() == "running"
        assert warden.status("web01")["breaches"] == []

    def test_a_snapshot_has_the_tpm_in_it(self, warden: Warden, images: Path) -> None:
        warden.started("web01", disks=[Disk(qcow2(images / "web01.qcow2"))], **WITH_TPM)
        warden.libvirt.virsh("snapshot-create-as", "web01", "s1")
        warden.libvirt.virsh("snapshot-revert", "web01", "s1")
        assert is_confined(swtpm(warden, "web01"))
        assert warden.status("web01")["breaches"] == []

    def test_banks_that_are_changed_at_each_start(self, warden: Warden) -> None:
        banks = "<active_pcr_banks><sha384/></active_pcr_banks>"
        tpm = TPM.replace("'2.0'/>", f"'2.0'>{banks}</backend>")
        warden.started("web01", machine="q35", extra_devices=tpm)
        warden.libvirt.destroy("web01")
        warden.libvirt.start("web01")
        assert is_confined(swtpm(warden, "web01"))

    def test_a_name_that_xml_escapes(self, warden: Warden) -> None:
        warden.enrolled("R&D", **WITH_TPM)
        warden.libvirt.start("R&D")
        assert warden.status("R&D")["breaches"] == []
        (pid_file,) = SOCKETS.glob("*-swtpm.pid")
        assert is_confined(process.read(int(pid_file.read_text())))

    def test_a_domain_that_nobody_enrolled(self, warden: Warden, service: object) -> None:
        xml = domain_xml("web01", emulator="", **WITH_TPM)
        warden.libvirt.virsh("create", "/dev/stdin", stdin=xml)
        assert is_confined(swtpm(warden, "web01"))
        assert warden.status("web01")["breaches"] == []


def test_the_policy_switches_it_off(warden: Warden) -> None:
    set_policy('managed = ["*"]\nsandbox = "off"\n')
    warden.started("web01", **WITH_TPM)
    assert not is_confined(swtpm(warden, "web01"))
    assert warden.status("web01")["breaches"] == []


def test_a_libvirt_that_goes_by_the_wrapper_is_a_breach(warden: Warden) -> None:
    links = [PATHS.emulators / name for name in ("swtpm", "swtpm_setup")]
    for link in links:
        link.unlink()
    try:
        # As after removal: libvirt looks again where it found one before.
        warden.started("web01", **WITH_TPM)
        (breach,) = warden.status("web01")["breaches"]
    finally:
        run("virt-warden", "package", "configure")
        warden.libvirt.restart()
    assert "its emulated TPM is not confined" in breach
    assert all(link.is_symlink() for link in links)


def test_a_setup_of_a_former_state_reads_no_other_vms(two: Warden) -> None:
    def reconfigures(name: str) -> subprocess.CompletedProcess[str]:
        words = ("--tpm2", "--reconfigure", "--pcr-banks", "sha256")
        place = ("--tpm-state", str(state(two, name).parent), "--logfile", str(log("web01")))
        user = ("setpriv", "--reuid=tss", "--regid=tss", "--clear-groups")
        return run(*user, str(PATHS.emulators / "swtpm_setup"), *words, *place, check=False)

    note = (PATHS.tpm_notes / "web01.json").read_text()
    two.libvirt.destroy("db01")
    two.libvirt.destroy("web01")
    PATHS.tpm_notes.joinpath("web01.json").write_text(note)
    try:
        assert reconfigures("web01").returncode == 0
        assert reconfigures("db01").returncode != 0
    finally:
        PATHS.tpm_notes.joinpath("web01.json").unlink()


def test_libvirts_own_user_swaps_no_socket_of_a_helper(two: Warden) -> None:
    user = pwd.getpwnam("libvirt-qemu").pw_uid

    def as_libvirt(*command: str) -> int:
        ids = (f"--reuid={user}", "--regid=libvirt-qemu", "--clear-groups")
        return run("setpriv", *ids, *command, check=False).returncode

    other = SOCKETS.parent / "passt" / "1-web01-net0.socket"
    other.write_text("")
    os.chown(other, pwd.getpwnam("vmw-web01").pw_uid, -1)
    for place in (socket_of(two, "web01"), other):
        assert as_libvirt("mv", str(place), f"{place}.away") != 0
        assert as_libvirt("rm", "-f", str(place)) != 0
    other.unlink()
    for name in HELPERS:
        assert (SOCKETS.parent / name).stat().st_uid == 0
        assert as_libvirt("mv", "-T", str(SOCKETS.parent / name), f"/run/libvirt/qemu/x{name}") != 0
    # Its own VMs' helpers work as before.
    mine = SOCKETS.parent / "passt" / "2-other-net0.socket"
    assert as_libvirt("touch", str(mine)) == 0
    assert as_libvirt("rm", str(mine)) == 0


def test_the_note_is_read_and_changed_by_nobody_but_its_wrapper_and_root(two: Warden) -> None:
    note = PATHS.tpm_notes / "web01.json"
    assert json.loads(note.read_text())["socket"] == str(socket_of(two, "web01"))
    assert (note.stat().st_uid, note.stat().st_mode & 0o022) == (0, 0)
    assert (note.parent.stat().st_uid, note.parent.stat().st_mode & 0o777) == (0, 0o711)

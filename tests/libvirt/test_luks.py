# SPDX-License-Identifier: GPL-2.0-or-later
"""Encrypted disks under guard: open while their VM runs, to it alone, and closed whatever happens.

The kernel's decryption is a stand-in here (tests/host/mapper); tests/appliance has the real one.
"""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.host.command import run
from tests.host.domain import Disk
from tests.host.images import luks, qcow2
from tests.host.syslog import Syslog
from tests.libvirt.vault import KEY, Vault, eventually, key_file, opened
from tests.libvirt.warden import LEFT_ALONE, as_user, set_policy
from virtwarden.changes import journal
from virtwarden.package.luks import by_hand
from virtwarden.paths import Paths
from virtwarden.system import mapper, users

PATHS = Paths()
NODE = Path("/dev/mapper/vmw-web01-vda")
WAS_BUSY = Path("/run/fake-cryptsetup-was-busy")
GATE = Path("/run/fake-cryptsetup-gate")

pytestmark = pytest.mark.usefixtures("dm")


def test_a_disk_is_open_while_its_vm_runs_and_to_it_alone(vault: Vault, images: Path) -> None:
    before = vault.container.stat()
    vault.enrol()
    vault.warden.started("other", disks=[Disk(qcow2(images / "other.qcow2"))])
    assert opened() == []
    vault.warden.libvirt.start("web01")
    assert opened() == ["vmw-web01-vda"]
    account = users.account("vmw-web01")
    assert account is not None
    node = NODE.stat()
    assert (node.st_uid, node.st_gid) == (account.uid, account.gid)
    assert stat.S_IMODE(node.st_mode) == 0o600
    assert as_user("vmw-other", lambda: os.open(NODE, os.O_RDONLY)) == "PermissionError"
    for path in (vault.container, vault.key):
        assert as_user("vmw-web01", lambda p=path: os.open(p, os.O_RDONLY)) == "PermissionError"  # type: ignore[misc]
    assert vault.warden.status("web01")["breaches"] == []
    vault.warden.libvirt.destroy("web01")
    assert opened() == []
    assert not NODE.exists()
    after = vault.container.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (
        before.st_uid,
        before.st_gid,
        before.st_mode,
    )


def test_luks1_opens_as_well(vault: Vault, images: Path) -> None:
    vault.container = luks(images / "old.luks", KEY, version=1)
    vault.say()
    vault.enrol()
    vault.warden.libvirt.start("web01")
    assert opened() == ["vmw-web01-vda"]
    vault.warden.libvirt.destroy("web01")


def test_a_node_is_called_as_the_policy_says(vault: Vault) -> None:
    vault.say(mapper='"vmw-shop"')
    vault.enrol(node="/dev/mapper/vmw-shop")
    vault.warden.libvirt.start("web01")
    assert opened() == ["vmw-shop"]
    vault.warden.libvirt.destroy("web01")


def test_a_domain_whose_name_no_node_can_have_gets_one_made_of_its_uuid(vault: Vault) -> None:
    vault.say("Ünï 1")
    line = vault.refusal("Ünï 1", node="/dev/mapper/vmw-x")
    name = line.partition("opened as /dev/mapper/")[2].partition(";")[0]
    assert name.startswith("vmw--n--1-")
    assert name.endswith("-vda")
    vault.enrol("Ünï 1", node=f"/dev/mapper/{name}")
    vault.warden.libvirt.start("Ünï 1")
    assert opened() == [name]
    vault.warden.libvirt.destroy("Ünï 1")


def test_a_read_only_disk_is_opened_read_only(vault: Vault) -> None:
    vault.disk = {"readonly": True}
    vault.enrol()
    vault.warden.libvirt.start("web01")
    (found,) = mapper.maps(PATHS.block_devices)
    assert found.readonly
    assert vault.warden.status("web01")["breaches"] == []
    vault.warden.libvirt.destroy("web01")


def test_once_virt_warden_is_gone_it_starts_as_the_removal_says(vault: Vault) -> None:
    vault.enrol()
    vault.warden.libvirt.start("web01")
    vault.warden.libvirt.destroy("web01")
    (line,) = by_hand(PATHS)
    said, _, command = line.partition(": ")
    assert said == "web01 needs its disk vda opened before it starts"
    run("virt-warden", "unenrol", "web01")
    set_policy(LEFT_ALONE)
    run("sh", "-c", command)
    vault.warden.libvirt.start("web01")
    vault.warden.libvirt.destroy("web01")
    run("cryptsetup", "close", "vmw-web01-vda")


class TestKeyFilesThatAreRefused:
    @pytest.mark.parametrize("mode", [0o440, 0o404, 0o660, 0o644])
    def test_one_that_others_can_read(self, vault: Vault, mode: int) -> None:
        vault.key.chmod(mode)
        line = vault.refusal()
        assert f"users other than root can read it (mode {mode:04o})" in line
        assert f"chmod 0400 {vault.key}" in line

    def test_one_that_an_acl_opens(self, vault: Vault) -> None:
        run("setfacl", "-m", "u:nobody:r", str(vault.key))
        assert "users other than root can read it" in vault.refusal()

    def test_one_that_is_not_roots(self, vault: Vault) -> None:
        os.chown(vault.key, 1234, 0)
        assert "users other than root can replace it" in vault.refusal()

    def test_one_in_a_directory_that_others_may_write(self, vault: Vault, images: Path) -> None:
        (images / "open").mkdir()
        (images / "open").chmod(0o777)
        vault.key = key_file(images / "open" / "key")
        vault.say()
        assert f"through {images}/open" in vault.refusal()

    def test_a_symlink_to_a_key(self, vault: Vault, images: Path) -> None:
        (images / "link").symlink_to(vault.key)
        vault.say(key_file=f'"{images}/link"')
        assert f"name {vault.key}" in vault.refusal()

    def test_a_key_that_is_not_there(self, vault: Vault) -> None:
        vault.key.unlink()
        assert "it is not there" in vault.refusal()

    def test_an_empty_one(self, vault: Vault) -> None:
        vault.key.unlink()
        key_file(vault.key, "")
        assert "the key is empty" in vault.refusal()

    def test_one_that_is_no_key(self, vault: Vault) -> None:
        vault.key.unlink()
        key_file(vault.key, "x" * 70_000)
        assert "it is larger than 64 KiB" in vault.refusal()

    def test_a_fifo(self, vault: Vault) -> None:
        vault.key.unlink()
        os.mkfifo(vault.key, 0o400)
        assert "it is not a regular file" in vault.refusal()


class TestContainersThatAreRefused:
    def test_with_another_key(self, vault: Vault) -> None:
        vault.key.unlink()
        key_file(vault.key, "wrong")
        line = vault.refusal()
        assert "wrong key" in line
        assert str(vault.container) in line

    def test_with_a_damaged_header(self, vault: Vault) -> None:
        with vault.container.open("r+b") as file:
            file.write(bytes(1024 * 1024))
        line = vault.refusal()
        assert "is not a valid LUKS device" in line
        assert "luksHeaderRestore" in line

    def test_with_damaged_key_slots(self, vault: Vault) -> None:
        with vault.container.open("r+b") as file:
            file.seek(32 * 1024)
            file.write(bytes(512 * 1024))
        assert "wrong key" in vault.refusal()

    def test_a_container_that_is_not_there(self, vault: Vault) -> None:
        vault.container.unlink()
        line = vault.refusal()
        assert f"LUKS container of disk vda ({vault.container}): it is not there" in line

    def test_a_symlink_to_a_container(self, vault: Vault, images: Path) -> None:
        (images / "link").symlink_to(vault.container)
        vault.say(luks=f'"{images}/link"')
        assert f"name {vault.container}" in vault.refusal()

    def test_one_of_a_vms_user(self, vault: Vault) -> None:
        vault.enrol()
        vault.warden.libvirt.start("web01")
        vault.warden.libvirt.destroy("web01")
        os.chown(vault.container, vault.warden.status("web01")["uid"], 0)
        assert "it belongs to a VM's user" in vault.refusal()

    def test_without_a_key_in_the_policy(self, vault: Vault) -> None:
        vault.say(key_file="")
        line = vault.refusal()
        assert "the policy names no key for" in line
        assert "policy.toml:5" in line

    def test_with_a_node_that_the_xml_does_not_name(self, vault: Vault) -> None:
        line = vault.refusal(node="/dev/mapper/vmw-web02-vda")
        assert "is opened as /dev/mapper/vmw-web01-vda" in line
        assert "virsh edit web01" in line

    def test_one_that_the_xml_names_itself(self, vault: Vault) -> None:
        """The guest would see ciphertext, and write over it."""
        vault.disk = {"kind": "file"}
        assert "is opened as /dev/mapper/vmw-web01-vda" in vault.refusal(node=vault.container)

    def test_one_that_is_shared(self, vault: Vault) -> None:
        vault.disk = {"shareable": True}
        assert "a LUKS container cannot be <shareable/>" in vault.refusal()

    def test_one_that_two_disks_have(self, vault: Vault) -> None:
        entry = f'\n[domain.disks.vdb]\nluks = "{vault.container}"\nkey.file = "{vault.key}"\n'
        vault.say(key_file=f'"{vault.key}"{entry}')
        disks = [
            Disk(f"/dev/mapper/vmw-web01-{target}", target, "raw", kind="block")
            for target in ("vda", "vdb")
        ]
        vault.warden.enrolled("web01", disks=disks)
        assert "disk vda uses the same container or mapper name" in vault.warden.refusal("web01")

    def test_one_that_is_open_under_another_name(self, vault: Vault) -> None:
        opening = ("open", "--type", "luks", "--key-file=-", str(vault.container), "theirs")
        run("cryptsetup", *opening, stdin=KEY)
        try:
            line = vault.refusal()
            assert "it is already open as /dev/mapper/theirs" in line
            assert "cryptsetup close theirs" in line
        finally:
            run("cryptsetup", "close", "theirs")
        vault.warden.libvirt.start("web01")
        vault.warden.libvirt.destroy("web01")

    def test_a_name_under_which_another_one_is_open(self, vault: Vault, images: Path) -> None:
        other = luks(images / "other.luks", KEY)
        opening = ("open", "--type", "luks", "--key-file=-", str(other), NODE.name)
        run("cryptsetup", *opening, stdin=KEY)
        try:
            assert f"another container is open as {NODE}" in vault.refusal()
        finally:
            run("cryptsetup", "close", NODE.name)

    def test_one_that_is_open_for_another_vm(self, vault: Vault) -> None:
        vault.say("web0?")
        vault.enrol()
        vault.warden.libvirt.start("web01")
        line = vault.refusal("web02")
        assert "running domain web01 also uses it" in line
        vault.warden.libvirt.destroy("web01")


def test_no_other_vm_reaches_what_is_decrypted_for_one(vault: Vault) -> None:
    vault.enrol()
    vault.warden.libvirt.start("web01")
    run("mknod", "/dev/twin", "b", *_number(NODE))
    try:
        for path in (NODE, Path("/dev/twin")):
            line = vault.refusal("evil", node=path)
            assert "the policy names no LUKS container for it" in line
    finally:
        Path("/dev/twin").unlink()
    vault.warden.libvirt.destroy("web01")
    assert "the policy names no LUKS container for it" in vault.refusal("evil", node=NODE)


def _number(node: Path) -> tuple[str, str]:
    number = node.stat().st_rdev
    return str(os.major(number)), str(os.minor(number))


def test_a_refused_start_leaves_nothing_open(vault: Vault) -> None:
    """QEMU itself fails after the container was opened."""
    vault.enrol()
    xml = vault.warden.libvirt.xml("web01", "--inactive")
    broken = xml.replace(
        "<devices>", "<devices><rng model='virtio'><backend model='random'>/nowhere</backend></rng>"
    )
    vault.warden.libvirt.define(broken)
    failed = vault.warden.libvirt.virsh("start", "web01", check=False)
    assert "/nowhere" in failed.stderr
    assert opened() == []


def test_a_qemu_that_is_killed_leaves_nothing_open(vault: Vault, syslog: Syslog) -> None:
    vault.enrol()
    vault.warden.libvirt.start("web01")
    os.kill(vault.warden.libvirt.pid("web01"), signal.SIGKILL)
    syslog.wait_for("event=undone")
    assert opened() == []


def test_a_container_stays_open_while_libvirtd_is_gone_and_closes_after(vault: Vault) -> None:
    vault.enrol()
    vault.warden.libvirt.start("web01")
    vault.warden.libvirt.kill()
    assert opened() == ["vmw-web01-vda"]
    vault.warden.libvirt.restart()
    assert vault.warden.status("web01")["breaches"] == []
    vault.warden.libvirt.destroy("web01")
    assert opened() == []


def test_a_close_that_is_busy_is_tried_again_then_told_until_it_is_done(
    vault: Vault, syslog: Syslog
) -> None:
    vault.enrol()
    vault.warden.libvirt.start("web01")
    with NODE.open("rb"):
        vault.warden.libvirt.destroy("web01")
        assert "is still open, and in use" in syslog.wait_for("event=failed")
        (left,) = vault.warden.status("web01")["breaches"]
        assert f"left over from its last run: open {vault.container} as {NODE}" in left
        assert vault.warden.command("recover", "web01", check=False).returncode == 1
        assert "is still open" in vault.warden.refusal("web01")
    vault.warden.command("recover", "web01")
    assert opened() == []
    assert vault.warden.status("web01")["breaches"] == []
    vault.warden.libvirt.start("web01")
    vault.warden.libvirt.destroy("web01")


def test_a_close_that_is_busy_at_first_succeeds_within_the_stop(vault: Vault) -> None:
    vault.enrol()
    vault.warden.libvirt.start("web01")
    WAS_BUSY.unlink(missing_ok=True)
    holder = NODE.open("rb")
    child = os.fork()
    if child == 0:  # it lets go once the hook has tried
        while not WAS_BUSY.exists():
            os.sched_yield()
        os._exit(0)
    holder.close()
    vault.warden.libvirt.destroy("web01")
    assert opened() == []
    assert os.waitpid(child, 0)[1] == 0


class TestKilledHooks:
    """`kill -9` of the hook while cryptsetup has the key, and opens the container all the same."""

    @pytest.fixture
    def gate(self) -> Iterator[Callable[[], None]]:
        os.mkfifo(GATE)

        def let_through() -> None:
            GATE.write_text("")
            GATE.unlink()

        yield let_through
        GATE.unlink(missing_ok=True)

    def test_what_opens_after_the_kill_is_closed(
        self, vault: Vault, gate: Callable[[], None]
    ) -> None:
        vault.enrol()
        starting = os.fork()
        if starting == 0:
            vault.warden.libvirt.virsh("start", "web01", check=False)
            os._exit(0)
        os.kill(eventually(hook_that_waits_for_cryptsetup), signal.SIGKILL)
        eventually(somebody_waits_for_a_lock)
        assert opened() == []
        gate()
        os.waitpid(starting, 0)
        assert opened() == []
        assert journal.records(PATHS, vault.warden.status("web01")["uuid"]) == []
        vault.warden.libvirt.start("web01")
        vault.warden.libvirt.destroy("web01")


def somebody_waits_for_a_lock() -> bool:
    """Whether a process is in flock(2); /proc/locks hides a lock whose taker has died."""
    for entry in Path("/proc").glob("[0-9]*/wchan"):
        try:
            if "locks_lock_inode_wait" in entry.read_text():
                return True
        except OSError:
            continue
    return False


def hook_that_waits_for_cryptsetup() -> int:
    """The one whose cryptsetup has the key, and waits at the gate (fifo(7))."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            waits = "wait_for_partner" in (entry / "wchan").read_text()
        except OSError:
            continue
        if waits and b"/usr/sbin/cryptsetup" in words[:3]:
            return parent(int(entry.name))
    return 0


def parent(pid: int) -> int:
    return int(Path("/proc", str(pid), "status").read_text().split("PPid:")[1].split()[0])

# SPDX-License-Identifier: GPL-2.0-or-later
"""`virsh start` under guard: each VM its own user, its own files, and nothing left afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.host.command import run
from tests.host.domain import Disk, Nic, Vnc, domain_xml
from tests.host.images import qcow2, raw
from tests.host.syslog import Syslog
from tests.libvirt.snapshots import snapshot
from tests.libvirt.warden import Warden, as_user, owner, set_policy
from virtwarden.changes import CreateUser, journal
from virtwarden.guards.sandbox import ENVIRONMENT
from virtwarden.paths import Paths
from virtwarden.system import users

PATHS = Paths()
MAC = "52:54:00:00:00:01"


def test_a_vm_runs_as_its_own_user_with_no_capability(warden: Warden, images: Path) -> None:
    qemu = warden.started("web01", disks=[Disk(qcow2(images / "web01.qcow2"))])
    account = users.account("vmw-web01")
    assert account is not None
    assert 70000 <= account.uid <= 99999
    assert set(qemu.uids) == {account.uid}
    assert set(qemu.gids) == {account.gid} == {account.uid}
    assert set(qemu.groups) == {account.gid, users.group_id("kvm")}
    assert qemu.capabilities == 0
    assert qemu.no_new_privileges
    assert (qemu.core_limit, qemu.umask) == ("0", 0o077)
    assert qemu.environment <= ENVIRONMENT
    assert qemu.executable == "/usr/bin/qemu-system-x86_64"
    assert warden.status("web01")["breaches"] == []


@pytest.mark.parametrize(
    ("name", "user"),
    [
        ("root", "vmw-root"),
        ("a b", "vmw-a-b-"),
        ("WEB.01", "vmw-web-01-"),
        ("ünïcødé", "vmw--n-c-d--"),
        ("n" * 200, "vmw-nnnnnnnnn"),
        ("$(reboot)", "vmw---reboot--"),
    ],
)
def test_no_name_of_a_domain_makes_a_user_that_is_not_its_own(
    warden: Warden, name: str, user: str
) -> None:
    qemu = warden.started(name)
    found = warden.status(name)["user"]
    assert found.startswith(user)
    assert len(found) <= 32
    account = users.account(found)
    assert account is not None
    assert set(qemu.uids) == {account.uid} != {0}


def test_two_domains_whose_names_come_out_alike_get_two_users(warden: Warden) -> None:
    warden.started("a b")
    warden.started("a_b")
    assert warden.status("a b")["uid"] != warden.status("a_b")["uid"]


def test_a_group_of_that_name_leads_to_another_user(warden: Warden) -> None:
    run("groupadd", "vmw-grouped")
    warden.started("grouped")
    assert warden.status("grouped")["user"].startswith("vmw-grouped-")


def test_a_user_that_could_not_be_made_can_be_made_at_the_next_start(warden: Warden) -> None:
    warden.enrolled("locked")
    lock = Path("/etc/passwd.lock")
    lock.write_text(str(os.getpid()))
    try:
        line = warden.refusal("locked")
    finally:
        lock.unlink()
    assert "cannot lock /etc/passwd" in line
    assert users.group_id("vmw-locked") is None
    warden.libvirt.start("locked")
    assert warden.status("locked")["user"] == "vmw-locked"


def test_a_user_that_was_made_by_half_when_the_hook_was_killed_is_made_anew(
    warden: Warden,
) -> None:
    name = warden.enrolled("halved")
    uuid = warden.libvirt.virsh("domuuid", name).stdout.strip()
    half = CreateUser(f"vmw-{name}", uuid, (70000, 99999), ("kvm",))
    with pytest.MonkeyPatch.context() as patch, journal.locked(PATHS, uuid):
        made_by = users.run
        patch.setattr(users, "run", lambda *words: "useradd" in words[0] or made_by(*words))
        journal.perform(PATHS, uuid, [half])
    left = users.group_id(f"vmw-{name}")
    assert left is not None
    foretold = warden.command("explain", name).stdout
    assert f"- create user and group vmw-{name} (" in foretold
    warden.libvirt.start(name)
    account = users.account(f"vmw-{name}")
    assert account is not None
    assert account.gid == account.uid != left


@pytest.mark.parametrize("mode", ["enforcing", "permissive", "disabled"])
def test_a_user_whose_comment_an_admin_changed_is_left_as_it_is(warden: Warden, mode: str) -> None:
    warden.started("web01")
    warden.libvirt.destroy("web01")
    made = pwd.getpwnam("vmw-web01")
    run("usermod", "--comment", "web server", "vmw-web01")
    try:
        set_policy(f'mode = "{mode}"\n')
        warden.libvirt.virsh("start", "web01", check=False)
        assert pwd.getpwnam("vmw-web01").pw_uid == made.pw_uid
    finally:
        run("usermod", "--comment", made.pw_gecos, "vmw-web01")


def test_a_label_that_names_another_domains_user_is_refused(warden: Warden) -> None:
    warden.started("web01")
    warden.enrolled("evil")
    forged = warden.libvirt.xml("evil", "--inactive").replace("vmw-evil", "vmw-web01")
    warden.libvirt.define(forged)
    assert "user vmw-web01 is not this domain's own" in warden.refusal("evil")
    warden.command("enrol", "evil")
    warden.libvirt.start("evil")


def test_a_label_that_names_root_is_refused(warden: Warden) -> None:
    warden.enrolled("evil")
    forged = warden.libvirt.xml("evil", "--inactive").replace("vmw-evil", "root")
    warden.libvirt.define(forged)
    assert "user root is not this domain's own" in warden.refusal("evil")


def test_a_domain_that_is_not_enrolled_is_refused_with_the_command_that_mends_it(
    warden: Warden,
) -> None:
    warden.libvirt.define(domain_xml("web01"))
    assert "fix: virt-warden enrol web01" in warden.refusal("web01")
    warden.command("enrol", "web01")
    warden.libvirt.start("web01")


def test_a_domain_that_the_policy_does_not_manage_is_left_alone(warden: Warden) -> None:
    set_policy('managed = ["*", "!theirs"]\n')
    warden.libvirt.define(domain_xml("theirs"))
    warden.libvirt.start("theirs")
    assert users.account("vmw-theirs") is None


def test_one_vms_user_cannot_touch_anothers_disk(warden: Warden, images: Path) -> None:
    disks = {name: raw(images / f"{name}.img", mode=0o666) for name in ("web01", "db01")}
    for name, disk in disks.items():
        warden.started(name, disks=[Disk(disk, format="raw")])
    for path in (disks["db01"], PATHS.cell(warden.status("db01")["uuid"]) / "ticket.json"):
        for flags in (os.O_RDONLY, os.O_WRONLY):
            result = as_user("vmw-web01", lambda p=path, f=flags: os.open(p, f))  # type: ignore[misc]
            assert result == "PermissionError", path
    assert as_user("vmw-web01", lambda: os.open(disks["web01"], os.O_RDWR)) == ""
    assert as_user("vmw-web01", lambda: list(PATHS.state.iterdir())) == "PermissionError"


def test_two_vms_run_on_one_base_that_neither_owns_nor_writes(warden: Warden, images: Path) -> None:
    base = qcow2(images / "base.qcow2", mode=0o666)
    os.chown(base, users.account("nobody").uid, 0)  # type: ignore[union-attr]
    before = owner(base)
    for name in ("web01", "db01"):
        overlay = qcow2(images / f"{name}.qcow2", backing=base, backing_format="qcow2")
        warden.started(name, disks=[Disk(overlay)])
    for name in ("web01", "db01"):
        assert base.stat().st_uid == 0
        assert as_user(f"vmw-{name}", lambda: os.open(base, os.O_RDWR)) == "PermissionError"
        assert as_user(f"vmw-{name}", lambda: base.chmod(0o666)) == "PermissionError"
        assert as_user(f"vmw-{name}", lambda: os.open(base, os.O_RDONLY)) == ""
        assert warden.status(name)["breaches"] == []
    assert as_user("nobody", lambda: os.open(base, os.O_RDONLY)) == "PermissionError"
    warden.libvirt.destroy("web01")
    assert as_user("vmw-web01", lambda: os.open(base, os.O_RDONLY)) == "PermissionError"
    assert as_user("vmw-db01", lambda: os.open(base, os.O_RDONLY)) == ""
    warden.libvirt.destroy("db01")
    assert owner(base) == before


def test_two_vms_read_one_cdrom(warden: Warden, images: Path) -> None:
    iso = raw(images / "install.iso", mode=0o644)
    for name in ("web01", "db01"):
        disk = Disk(iso, target="sda", format="raw", readonly=True, device="cdrom")
        warden.started(name, disks=[disk])
    assert iso.stat().st_uid == 0
    assert as_user("vmw-web01", lambda: os.open(iso, os.O_RDONLY)) == ""
    assert as_user("vmw-web01", lambda: os.open(iso, os.O_RDWR)) == "PermissionError"


def test_who_cannot_read_an_iso_while_vms_use_it_is_told_and_can_be_let(
    warden: Warden, images: Path
) -> None:
    iso = raw(images / "install.iso", mode=0o644)
    nobody = pwd.getpwnam("nobody").pw_uid
    os.chown(iso, nobody, -1)
    disk = Disk(iso, target="sda", format="raw", readonly=True, device="cdrom")
    warden.enrolled("web01", disks=[disk])
    before = warden.command("check", check=False)
    assert before.returncode == 0
    told = f"- {iso} can be read only by root and the VMs that use it"
    assert f"{told} while one of them runs, not by nobody, its owner" in before.stdout
    warden.libvirt.start("web01")
    warden.started("web02", disks=[disk])
    status = warden.command("status")
    assert status.stdout.count(f"{told} until the last of them stops, not by nobody") == 1
    (note,) = warden.status("web02")["withheld"]
    assert as_user("nobody", lambda: os.open(iso, os.O_RDONLY)) == "PermissionError"
    advice = note.partition("read it then: ")[2].replace("USER", "nobody")
    subprocess.run(advice, shell=True, check=True)  # noqa: S602 - as an admin pastes it
    assert as_user("nobody", lambda: os.open(iso, os.O_RDONLY)) == ""
    assert as_user("nobody", lambda: os.open(iso, os.O_RDWR)) == "PermissionError"
    assert warden.status("web01")["breaches"] == warden.status("web02")["breaches"] == []
    for name in ("web01", "web02"):
        warden.libvirt.destroy(name)
    assert (iso.stat().st_uid, iso.stat().st_mode & 0o777) == (nobody, 0o644)
    assert warden.status("web01")["withheld"] == []


def test_a_cluster_disk_is_written_by_both_its_vms_and_nobody_else(
    warden: Warden, images: Path
) -> None:
    quorum = raw(images / "quorum.img")
    for name in ("web01", "db01"):
        warden.started(name, disks=[Disk(quorum, format="raw", shareable=True)])
    warden.started("other")
    for name in ("web01", "db01"):
        assert as_user(f"vmw-{name}", lambda: os.open(quorum, os.O_RDWR)) == ""
    assert as_user("vmw-other", lambda: os.open(quorum, os.O_RDONLY)) == "PermissionError"


def test_a_disk_that_a_running_vm_writes_is_refused_to_another(
    warden: Warden, images: Path
) -> None:
    disk = Disk(qcow2(images / "one.qcow2"))
    warden.started("web01", disks=[disk])
    warden.enrolled("web02", disks=[disk])
    line = warden.refusal("web02")
    assert "disk vda" in line
    assert "running domain web01 also uses it" in line
    warden.libvirt.destroy("web01")
    warden.libvirt.start("web02")


def test_a_base_that_another_vm_would_write_is_refused(warden: Warden, images: Path) -> None:
    base = qcow2(images / "base.qcow2")
    overlay = qcow2(images / "web01.qcow2", backing=base, backing_format="qcow2")
    warden.started("web01", disks=[Disk(overlay)])
    warden.enrolled("web02", disks=[Disk(base)])
    assert "running domain web01 also uses it" in warden.refusal("web02")


def test_an_image_that_grew_a_base_since_its_enrolment_is_not_followed(
    warden: Warden, images: Path
) -> None:
    """A guest that took over its QEMU can write any base's name into its own image."""
    secret = raw(images / "secret.img")
    before = owner(secret)
    image = qcow2(images / "evil.qcow2")
    warden.enrolled("evil", disks=[Disk(image)])
    qcow2(images / "forged.qcow2", backing=secret, backing_format="raw").replace(image)
    warden.libvirt.virsh("start", "evil", check=False)
    assert owner(secret) == before
    assert as_user("vmw-evil", lambda: os.open(secret, os.O_RDONLY)) == "PermissionError"


def test_a_disk_whose_bases_the_xml_does_not_tell_is_refused(warden: Warden, images: Path) -> None:
    warden.enrolled("web01", disks=[Disk(qcow2(images / "web01.qcow2"))])
    xml = warden.libvirt.xml("web01", "--inactive").replace("<backingStore/>", "")
    warden.libvirt.define(xml)
    assert "virt-warden enrol web01" in warden.refusal("web01")


def test_a_person_who_swaps_a_disk_for_a_symlink_is_told_of(warden: Warden, images: Path) -> None:
    images.chmod(0o755)
    home = images / "home"
    home.mkdir()
    os.chown(home, 1000, 1000)
    disk = qcow2(home / "disk.qcow2")
    warden.started("web01", disks=[Disk(disk)])
    assert warden.status("web01")["breaches"] == []
    other = raw(images / "other.img")
    disk.rename(home / "kept.qcow2")
    disk.symlink_to(other)
    (breach,) = warden.status("web01")["breaches"]
    assert f"storage: {disk} is reached by the symlink {disk}" in breach
    disk.unlink()
    (home / "kept.qcow2").rename(disk)
    assert warden.status("web01")["breaches"] == []


class TestPathsThatAreRefused:
    def test_a_symlink(self, warden: Warden, images: Path) -> None:
        real = qcow2(images / "real.qcow2")
        link = images / "link.qcow2"
        link.symlink_to(real)
        warden.enrolled("web01", disks=[Disk(link)])
        line = warden.refusal("web01")
        assert f"{link} is a symlink" in line
        assert f"name {real}" in line

    def test_a_symlink_on_the_way(self, warden: Warden, images: Path) -> None:
        (images / "dir").mkdir()
        disk = qcow2(images / "dir" / "disk.qcow2")
        (images / "link").symlink_to(images / "dir")
        warden.enrolled("web01", disks=[Disk(images / "link" / "disk.qcow2")])
        assert f"name {disk}" in warden.refusal("web01")

    def test_a_hard_link_to_somebody_elses_file(self, warden: Warden, images: Path) -> None:
        secret = raw(images / "secret.img")
        (images / "disk.img").hardlink_to(secret)
        before = owner(secret)
        warden.enrolled("web01", disks=[Disk(images / "disk.img", format="raw")])
        assert "it has 2 hard links" in warden.refusal("web01")
        assert owner(secret) == before

    @pytest.mark.parametrize("mode", [0o777, 0o1777])
    def test_a_directory_that_everyone_may_write(
        self, warden: Warden, images: Path, mode: int
    ) -> None:
        (images / "open").mkdir()
        (images / "open").chmod(mode)
        disk = Disk(qcow2(images / "open" / "disk.qcow2"))
        warden.enrolled("web01", disks=[disk])
        assert "can be written by everyone" in warden.refusal("web01")

    @pytest.mark.parametrize("uid", [33, 61184, 64055, 65534])
    def test_a_directory_of_a_system_user(self, warden: Warden, images: Path, uid: int) -> None:
        """A service that was taken over, or QEMU without virt-warden, could swap what is in it."""
        (images / "theirs").mkdir()
        disk = qcow2(images / "theirs" / "disk.qcow2")
        warden.enrolled("web01", disks=[Disk(disk)])
        os.chown(images / "theirs", uid, 0)
        assert f"belongs to a system user (uid {uid})" in warden.refusal("web01")
        os.chown(images / "theirs", 0, 0)
        warden.libvirt.start("web01")

    def test_a_directory_of_another_vms_user(self, warden: Warden, images: Path) -> None:
        warden.started("evil")
        (images / "theirs").mkdir()
        os.chown(images / "theirs", warden.status("evil")["uid"], 0)
        warden.enrolled("web01", disks=[Disk(qcow2(images / "theirs" / "disk.qcow2"))])
        assert "belongs to a VM's user" in warden.refusal("web01")

    def test_a_file_of_another_running_vms_user(self, warden: Warden, images: Path) -> None:
        warden.started("evil")
        disk = raw(images / "disk.img")
        os.chown(disk, warden.status("evil")["uid"], 0)
        warden.enrolled("web01", disks=[Disk(disk, format="raw")])
        assert "belongs to the user of another running VM" in warden.refusal("web01")

    def test_a_file_that_is_not_there(self, warden: Warden, images: Path) -> None:
        disk = qcow2(images / "disk.qcow2")
        warden.enrolled("web01", disks=[Disk(disk)])
        disk.unlink()
        assert "it is not there" in warden.refusal("web01")

    def test_a_host_directory_shared_with_the_guest(self, warden: Warden, images: Path) -> None:
        share = f"<filesystem><source dir='{images}'/><target dir='x'/></filesystem>"
        warden.enrolled("web01", extra_devices=share)
        line = warden.refusal("web01")
        assert "it shares the host's directory" in line
        assert "shared_directories" in line


def test_a_disk_below_a_closed_directory_is_reached_by_its_vm_alone(
    warden: Warden, images: Path
) -> None:
    closed = images / "closed"
    closed.mkdir(mode=0o700)
    disk = qcow2(closed / "disk.qcow2")
    before = snapshot([closed])
    warden.started("web01", disks=[Disk(disk)])
    warden.started("other")
    assert as_user("vmw-web01", lambda: os.open(disk, os.O_RDWR)) == ""
    assert as_user("vmw-web01", lambda: list(closed.iterdir())) == "PermissionError"
    assert as_user("vmw-other", disk.stat) == "PermissionError"
    warden.libvirt.destroy("web01")
    warden.libvirt.destroy("other")
    after = snapshot([closed])
    assert after[str(disk)] == before[str(disk)]
    assert after[str(closed)] == before[str(closed)]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"vnc": Vnc(listen="0.0.0.0")}, "VNC would listen on 0.0.0.0"),  # noqa: S104
        (
            {"extra_devices": "<graphics type='spice' autoport='yes' listen='::'/>"},
            "SPICE would listen on ::",
        ),
        (
            {"extra_devices": f"<interface type='user'><mac address='{MAC}'/></interface>"},
            "nothing can filter what it sends",
        ),
    ],
)
def test_a_domain_that_would_be_unguarded_is_refused(
    warden: Warden, parts: dict[str, object], words: str
) -> None:
    warden.enrolled("web01", **parts)
    line = warden.refusal("web01")
    assert words in line
    assert "policy.toml:" in line or "built-in default" in line or "virsh edit" in line


def test_arguments_passed_to_qemu_are_refused_unless_the_policy_names_the_domain(
    warden: Warden,
) -> None:
    namespace = "xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'"
    passed = "<q:arg value='-msg'/><q:arg value='guest-name=on'/>"
    warden.enrolled("web01", extra=f"<q:commandline {namespace}>{passed}</q:commandline>")
    assert "qemu:commandline" in warden.refusal("web01")
    exception = '[[domain]]\nmatch = "web01"\nexceptions = ["qemu-commandline"]\n'
    set_policy(f'managed = ["*"]\n{exception}')
    warden.libvirt.start("web01")


def test_an_emulator_that_is_not_the_wrapper_is_refused(warden: Warden) -> None:
    warden.enrolled("web01")
    wrapper = str(PATHS.wrapper_dir / "qemu-system-x86_64")
    xml = warden.libvirt.xml("web01", "--inactive")
    warden.libvirt.define(xml.replace(wrapper, "/usr/bin/qemu-system-x86_64"))
    assert "its emulator is /usr/bin/qemu-system-x86_64" in warden.refusal("web01")


def test_a_start_says_what_it_did_in_one_line(warden: Warden, syslog: Syslog) -> None:
    warden.started("web01")
    line = syslog.wait_for("event=verified")
    for word in (
        "domain=web01",
        "user=vmw-web01",
        "guards=identity,luks,encryption,storage,boot,zones",
    ):
        assert word in line


def test_a_firmware_with_its_nvram_starts(warden: Warden, images: Path) -> None:
    nvram = images / "VARS.fd"
    shutil.copy("/usr/share/OVMF/OVMF_VARS_4M.fd", nvram)
    before = owner(nvram)
    firmware = (
        "<os><type arch='x86_64' machine='q35'>hvm</type>"
        "<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>"
        f"<nvram>{nvram}</nvram></os>"
    )
    xml = domain_xml("web01", machine="q35")
    start, end = xml.index("<os>"), xml.index("</os>") + len("</os>")
    warden.libvirt.define(xml[:start] + firmware + xml[end:])
    warden.command("enrol", "web01")
    warden.libvirt.start("web01")
    assert nvram.stat().st_uid == warden.status("web01")["uid"]
    assert warden.status("web01")["breaches"] == []
    warden.libvirt.destroy("web01")
    assert owner(nvram) == before


def test_several_nics_and_disks_start(warden: Warden, images: Path, bridge: str) -> None:
    disks = [Disk(qcow2(images / f"{t}.qcow2"), target=t) for t in ("vda", "vdb", "vdc")]
    nics = [Nic(f"52:54:00:00:00:0{number}", bridge) for number in range(1, 4)]
    warden.started("web01", disks=disks, nics=nics, vnc=Vnc())
    assert warden.status("web01")["breaches"] == []


def test_a_serial_ports_log_that_libvirt_makes_is_no_breach(warden: Warden, images: Path) -> None:
    log = images / "serial.log"
    serial = f"<serial type='pty'><log file='{log}'/></serial>"
    for _ in range(2):  # libvirt makes it at the first start
        warden.started("web01", extra_devices=serial)
        assert log.exists()
        assert warden.status("web01")["breaches"] == []
        warden.libvirt.destroy("web01")
    assert log.stat().st_mode & 0o077 == 0

# SPDX-License-Identifier: GPL-2.0-or-later
"""Installed, upgraded, removed and purged by dpkg, with VMs running: nothing is left broken."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.host.command import run
from tests.host.domain import Disk, Nic, domain_xml
from tests.host.images import qcow2
from tests.host.libvirt import Libvirt
from tests.host.network import bridge
from tests.host.service import service
from tests.host.traces import traces
from tests.libvirt.warden import Warden
from tests.package.dpkg import Package
from virtwarden.guards.pathways import libvirts_own
from virtwarden.paths import Paths
from virtwarden.system import users

HOOKS = Path("/etc/libvirt/hooks")
HOOK = HOOKS / "qemu"
BESIDE = HOOKS / "qemu.d" / "virt-warden"
STATE = Path("/var/lib/virt-warden")
LEDGER_COPY = Path("/etc/virt-warden/uids")
WRAPPERS = Path("/usr/lib/virt-warden")
APPARMOR = Path("/etc/apparmor.d")
PROFILES = ("usr.sbin.libvirtd", "abstractions/libvirt-qemu")
QEMU = "/usr/bin/qemu-system-x86_64"
PLAIN_QEMU = "<emulator>/usr/bin/qemu-system-x86_64</emulator>"


def owner(path: Path) -> str:
    found = path.stat()
    return f"{found.st_uid}:{found.st_gid} {stat.S_IMODE(found.st_mode):04o}"


def added_to(profile: str) -> Path:
    """Where additions to a profile of libvirt's go: Debian 13 has drop-ins for abstractions."""
    has_drop_ins = f"<{profile}.d>" in (APPARMOR / profile).read_text()
    return (
        APPARMOR / f"{profile}.d" / "virt-warden" if has_drop_ins else APPARMOR / "local" / profile
    )


def plainly_started(libvirt: Libvirt, name: str) -> None:
    """Start a domain, which then runs as if virt-warden had never been."""
    libvirt.start(name)
    assert Path(f"/proc/{libvirt.pid(name)}").owner() == "libvirt-qemu"
    libvirt.destroy(name)


@contextmanager
def admins_hook(path: Path) -> Iterator[Path]:
    """A hook of the admin's own, and the file into which it writes its calls."""
    calls = Path("/run/admins-hook-calls")
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\necho "$2" >>{calls}\n')
    path.chmod(0o755)
    try:
        yield calls
    finally:
        path.unlink()
        calls.unlink(missing_ok=True)


class TestInstalled:
    """These only look, and share one installation."""

    @pytest.fixture(scope="class")
    def installed(self, deb: Path, quick_host: None) -> Iterator[Package]:
        package = Package(deb)
        package.install()
        yield package
        package.purge()

    def test_its_modules_are_compiled(self, installed: Package) -> None:
        sources = [*Path("/usr/share/virt-warden/virtwarden").rglob("*.py")]
        assert len(sources) > 50
        for source in sources:
            assert [*source.parent.glob(f"__pycache__/{source.stem}.cpython-*.pyc")], source

    def test_where_libvirt_has_no_apparmor_profile_no_local_file_is_made(
        self, installed: Package
    ) -> None:
        assert not (APPARMOR / "local" / "usr.sbin.virtqemud").exists()

    def test_a_new_qemu_makes_libvirt_look_at_the_wrapper_anew(self, installed: Package) -> None:
        wrapper = WRAPPERS / "qemu-system-x86_64"
        os.utime(wrapper, (0, 0))
        run("dpkg-trigger", "--by-package=qemu-system-x86", "/usr/bin/qemu-system-x86_64")
        run("dpkg", "--triggers-only", "virt-warden")
        assert wrapper.stat().st_mtime > 0


class TestInstall:
    def test_a_vm_is_guarded_with_no_restart_of_libvirt(
        self, package: Package, libvirt: Libvirt, images: Path
    ) -> None:
        package.install()
        warden = Warden(libvirt)
        warden.started("web01", disks=[Disk(qcow2(images / "disk.qcow2"))])
        assert warden.status("web01")["breaches"] == []

    def test_an_admins_hook_stays_and_runs_beside_ours(
        self, package: Package, libvirt: Libvirt
    ) -> None:
        with admins_hook(HOOK) as calls:
            before = (HOOK.read_bytes(), HOOK.stat())
            package.install()
            warden = Warden(libvirt)
            warden.started("web01")
            assert "prepare" in calls.read_text().split()
            assert warden.status("web01")["breaches"] == []
            libvirt.destroy("web01")
            package.remove()
            assert (HOOK.read_bytes(), HOOK.stat()) == before
            assert not BESIDE.parent.exists()

    def test_an_admins_hook_put_in_our_place_later_is_not_lost(
        self, package: Package, libvirt: Libvirt
    ) -> None:
        package.install()
        warden = Warden(libvirt)
        warden.started("web01")
        libvirt.destroy("web01")
        with admins_hook(HOOK) as calls:
            theirs = HOOK.read_bytes()
            refusal = libvirt.virsh("start", "web01", check=False).stderr
            assert "virt-warden package configure" in refusal
            warden.command("package", "configure")
            libvirt.start("web01")
            assert warden.status("web01")["breaches"] == []
            assert HOOK.read_bytes() == theirs
            assert "started" in calls.read_text().split()
            libvirt.destroy("web01")
            package.remove()
            assert HOOK.read_bytes() == theirs
            assert not BESIDE.exists()

    def test_an_admins_hook_beside_ours_stays(self, package: Package) -> None:
        theirs = HOOKS / "qemu.d" / "theirs"
        with admins_hook(HOOK), admins_hook(theirs):
            package.install()
            assert BESIDE.exists()
            package.purge()
            assert theirs.exists()
        theirs.parent.rmdir()

    def test_apparmors_local_files_have_one_line_more_and_then_are_as_before(
        self, package: Package
    ) -> None:
        added = [added_to(profile) for profile in PROFILES]
        originals = {path: path.read_bytes() for path in added if path.exists()}
        for path in added:
            path.parent.mkdir(exist_ok=True)
            path.write_text("# mine\n/srv/mine r,\n")
        try:
            package.install()
            package.install()
            for path in added:
                mine, ours = path.read_text().split("/srv/mine r,\n")
                assert mine == "# mine\n"
                assert ours.count("\n") == 1
                assert ours.startswith("/usr/lib/virt-warden/* ")
                path.write_text(path.read_text() + "/srv/later r,\n")
            package.remove()
            for path in added:
                assert path.read_text() == "# mine\n/srv/mine r,\n/srv/later r,\n"
        finally:
            for path in added:
                if path in originals:
                    path.write_bytes(originals[path])
                else:
                    shutil.rmtree(path.parent)

    def test_it_works_where_libvirt_does_not_run(self, package: Package, libvirt: Libvirt) -> None:
        libvirt.stop()
        package.install()
        libvirt.restart()
        Warden(libvirt).started("web01")

    def test_installed_and_purged_leaves_no_trace(self, package: Package, libvirt: Libvirt) -> None:
        libvirt.define(domain_xml("web01"))
        before = {**traces(), "xml": libvirt.xml("web01").splitlines()}
        package.install()
        warden = Warden(libvirt)
        warden.command("enrol", "web01")
        libvirt.start("web01")
        libvirt.destroy("web01")
        package.purge(forget_uids=True)
        after = {**traces(), "xml": libvirt.xml("web01").splitlines()}
        for kind in ("users", "groups", "rules", "interfaces", "xml"):
            assert after[kind] == before[kind], kind
        names = {
            kind: {line.split()[0] for line in found["files"] + found["tops"]}
            for kind, found in (("before", before), ("after", after))
        }
        appeared = names["after"] - names["before"]
        # passwd(5) keeps the former version of its files, libvirt what it knows of an emulator.
        assert {n for n in appeared if not n.endswith("-") and "/libvirt/" not in n} == set()


class TestUpgrade:
    def test_a_running_vm_stays_under_guard(
        self, package: Package, libvirt: Libvirt, images: Path
    ) -> None:
        package.install(package.with_version("0.0.9"))
        warden = Warden(libvirt)
        disk = qcow2(images / "disk.qcow2")
        before = owner(disk)
        pid = warden.started("web01", disks=[Disk(disk)]).pid
        package.install()
        assert libvirt.pid("web01") == pid
        assert warden.status("web01")["breaches"] == []
        libvirt.destroy("web01")
        assert owner(disk) == before
        libvirt.start("web01")
        assert warden.status("web01")["breaches"] == []

    def test_an_edited_policy_stays(self, package: Package) -> None:
        package.install(package.with_version("0.0.9"))
        policy = Path("/etc/virt-warden/policy.toml")
        policy.write_text('managed = ["mine"]\n')
        package.install()
        assert policy.read_text() == 'managed = ["mine"]\n'

    def test_libvirts_own_upgrade_leaves_vms_their_way_to_its_directory(
        self, warden: Warden, libvirt: Libvirt
    ) -> None:
        warden.started("web01")
        (script,) = (
            each
            for each in Path("/var/lib/dpkg/info").glob("libvirt-daemon*.postinst")
            if "/var/lib/libvirt/qemu" in each.read_text()
        )
        run("dpkg-reconfigure", "--frontend=noninteractive", script.stem)
        found = Path("/var/lib/libvirt/qemu").stat()
        assert stat.S_IMODE(found.st_mode) == 0o750, "libvirt's postinst has changed: look anew"
        assert warden.status("web01")["breaches"] == []
        reach = run("setpriv", "--reuid=vmw-web01", "--clear-groups", "--", *STAT, check=False)
        assert reach.returncode == 0, reach.stderr
        warden.started("db01")
        assert warden.status("db01")["breaches"] == []


STAT = ("stat", "/var/lib/libvirt/qemu/save")


class TestRemove:
    def test_every_vm_starts_plainly(
        self, warden: Warden, package: Package, libvirt: Libvirt, images: Path
    ) -> None:
        base = qcow2(images / "base.qcow2", mode=0o644)
        for name in ("web01", "db01"):
            overlay = qcow2(images / f"{name}.qcow2", backing=base)
            libvirt.define(domain_xml(name, disks=[Disk(overlay)]))
        before = {name: libvirt.xml(name) for name in ("web01", "db01")}
        warden.command("enrol", "--all")
        libvirt.start("web01")
        libvirt.destroy("web01")
        package.remove()
        assert {name: libvirt.xml(name) for name in before} == before
        for name in before:
            plainly_started(libvirt, name)
        assert not HOOK.exists()

    def test_a_vm_that_runs_goes_on_and_its_files_are_given_back_when_it_stops(
        self, warden: Warden, package: Package, libvirt: Libvirt, images: Path
    ) -> None:
        disk, base = qcow2(images / "disk.qcow2", mode=0o640), qcow2(images / "base.qcow2")
        overlay = qcow2(images / "overlay.qcow2", backing=base)
        os.chown(disk, users.account("nobody").uid, 0)  # type: ignore[union-attr]
        before = {path: owner(path) for path in (disk, base, overlay)}
        libvirt.restart()  # gives its directories to its user, as after each boot
        directory = run("getfacl", "-p", "/var/lib/libvirt/qemu").stdout
        own = {path: path.owner() for path in map(Path, libvirts_own(Paths()))}
        disks = [Disk(disk), Disk(overlay, target="vdb")]
        with bridge("br-removal") as br:
            nics = [Nic("52:54:00:00:00:01", br)]
            pid = warden.started("web01", disks=disks, nics=nics).pid
            assert {path.owner() for path in own} == {"root"}
            said = package.remove()
            assert {path: path.owner() for path in own} == own
            assert "still runs guarded" in said
            assert package.status() == "deinstall ok config-files"
            assert libvirt.pid("web01") == pid
            libvirt.restart()
            assert libvirt.pid("web01") == pid
            with autoremoved():
                libvirt.destroy("web01")
            assert {path: owner(path) for path in before} == before
            assert run("getfacl", "-p", "/var/lib/libvirt/qemu").stdout == directory
            rules = run("nft", "list", "ruleset").stdout
            assert "virt-warden" not in rules
            assert "vmw-" not in rules
            assert not HOOK.exists()
            assert not WRAPPERS.exists()
            assert not (STATE / "farewell").exists()
            plainly_started(libvirt, "web01")

    def test_managed_saves_snapshots_and_checkpoints_are_plain(
        self, warden: Warden, package: Package, libvirt: Libvirt, images: Path
    ) -> None:
        for name in ("web01", "db01"):
            warden.started(name, disks=[Disk(qcow2(images / f"{name}.qcow2"))])
        libvirt.virsh("snapshot-create-as", "web01", "first")
        libvirt.virsh("snapshot-create-as", "web01", "second")
        libvirt.virsh("managedsave", "web01")
        libvirt.virsh("checkpoint-create-as", "db01", "kept")
        libvirt.destroy("db01")
        package.remove()
        assert not WRAPPERS.exists()
        libvirt.restart()
        plainly_started(libvirt, "web01")
        assert libvirt.virsh("snapshot-current", "web01", "--name").stdout.strip() == "second"
        assert libvirt.virsh("checkpoint-list", "db01", "--name").stdout.split() == ["kept"]
        libvirt.virsh("snapshot-revert", "web01", "first")
        assert Path(f"/proc/{libvirt.pid('web01')}").owner() == "libvirt-qemu"

    def test_a_snapshot_is_unenrolled_or_where_libvirt_will_not_named_and_stays_listed(
        self, warden: Warden, package: Package, libvirt: Libvirt, images: Path
    ) -> None:
        warden.started("web01", disks=[Disk(qcow2(images / "disk.qcow2"))])
        libvirt.virsh("snapshot-create-as", "web01", "first")
        libvirt.virsh("checkpoint-create-as", "web01", "kept")
        libvirt.destroy("web01")
        said = package.remove()
        of_it = libvirt.virsh("snapshot-dumpxml", "web01", "first").stdout
        if "virt-warden" in of_it:
            assert "snapshot first of web01 stays enrolled" in said
            assert "fix: virsh snapshot-edit web01 first" in said
        else:  # libvirt 11 rewrites it
            assert PLAIN_QEMU in of_it
            assert "stays enrolled" not in said
        libvirt.restart()
        assert libvirt.virsh("snapshot-list", "web01", "--name").stdout.split() == ["first"]
        plainly_started(libvirt, "web01")

    def test_a_vm_saved_only_after_the_removal_is_restored_plainly(
        self, warden: Warden, package: Package, libvirt: Libvirt, images: Path
    ) -> None:
        disk = qcow2(images / "disk.qcow2")
        before = owner(disk)
        warden.started("web01", disks=[Disk(disk)])
        package.remove()
        with autoremoved():
            libvirt.virsh("managedsave", "web01")
            assert owner(disk) == before
            libvirt.restart()
            plainly_started(libvirt, "web01")
        assert not HOOK.exists()
        assert not WRAPPERS.exists()

    def test_it_works_where_libvirt_does_not_run(
        self, warden: Warden, package: Package, libvirt: Libvirt, images: Path
    ) -> None:
        libvirt.define(domain_xml("web01", disks=[Disk(qcow2(images / "disk.qcow2"))]))
        before = libvirt.xml("web01")
        warden.command("enrol", "web01")
        libvirt.start("web01")
        libvirt.virsh("snapshot-create-as", "web01", "first")
        libvirt.destroy("web01")
        libvirt.stop()
        assert "libvirt does not run" in package.remove()
        libvirt.restart()
        assert libvirt.xml("web01") == before
        plainly_started(libvirt, "web01")
        libvirt.virsh("snapshot-revert", "web01", "first")

    def test_where_libvirt_hangs_all_stays_installed_until_that_is_mended(
        self, warden: Warden, package: Package, libvirt: Libvirt
    ) -> None:
        warden.started("web01")
        prerm = Path("/var/lib/dpkg/info/virt-warden.prerm")
        prerm.write_text(prerm.read_text().replace("seconds=300", "seconds=2"))
        libvirt.send(signal.SIGSTOP)
        try:
            said = package.refusal_to_remove()
        finally:
            libvirt.send(signal.SIGCONT)
        assert "fix: systemctl stop libvirtd" in said
        assert package.status() == "deinstall ok installed"
        assert run("dpkg", "--audit").stdout == ""
        assert warden.status("web01")["breaches"] == []
        libvirt.destroy("web01")
        libvirt.start("web01")
        package.remove()

    def test_a_domain_that_libvirt_will_not_take_back_keeps_it_installed(
        self, warden: Warden, package: Package, libvirt: Libvirt
    ) -> None:
        warden.enrolled("web01")
        warden.enrolled("db01")
        broken = libvirt.xml("web01").replace(
            "<warden:emulator>/usr/bin/qemu-system-x86_64", "<warden:emulator>/usr/bin/gone"
        )
        libvirt.define(broken)
        said = package.refusal_to_remove()
        assert "web01: libvirt does not take the domain's XML" in said
        assert "fix: virsh edit web01, or: systemctl stop libvirtd" in said
        libvirt.undefine("web01")
        package.remove()
        plainly_started(libvirt, "db01")

    def test_our_hook_that_an_admin_edited_stays_and_refuses_nothing(
        self, warden: Warden, package: Package, libvirt: Libvirt
    ) -> None:
        warden.enrolled("web01")
        HOOK.write_text(HOOK.read_text() + "# edited\n")
        package.purge()
        assert HOOK.exists()
        plainly_started(libvirt, "web01")
        HOOK.unlink()

    def test_installed_again_while_a_vm_runs_it_guards_on(
        self, warden: Warden, package: Package, libvirt: Libvirt, images: Path
    ) -> None:
        disk = qcow2(images / "disk.qcow2")
        before = owner(disk)
        warden.started("web01", disks=[Disk(disk)])
        package.remove()
        package.install()
        assert not (STATE / "farewell").exists()
        assert not any(path.is_symlink() for path in WRAPPERS.iterdir())
        libvirt.destroy("web01")
        assert owner(disk) == before
        warden.command("enrol", "web01")
        libvirt.start("web01")
        assert warden.status("web01")["breaches"] == []


class TestAdopted:
    """VMs that nobody enrolled, when virt-warden goes while they run as users of their own."""

    @pytest.mark.parametrize("purges", [False, True], ids=["removed", "purged"])
    def test_one_that_is_only_created_goes_on_and_gives_back_what_it_had(
        self, warden: Warden, package: Package, libvirt: Libvirt, images: Path, *, purges: bool
    ) -> None:
        base = qcow2(images / "base.qcow2")
        overlay = qcow2(images / "web01.qcow2", backing=base)
        xml = domain_xml("web01", disks=[Disk(overlay)], emulator=None)
        before = {path: owner(path) for path in (base, overlay)}
        with service():
            libvirt.virsh("create", "/dev/stdin", stdin=xml)
        pid = libvirt.pid("web01")
        assert Path(f"/proc/{pid}").owner() == "vmw-web01"
        assert "group:kvm:--x" in run("getfacl", "-p", QEMU).stdout
        said = package.purge() if purges else package.remove()
        assert "still runs guarded" in said
        assert "kvm" not in run("getfacl", "-p", QEMU).stdout
        libvirt.restart()
        assert libvirt.pid("web01") == pid
        assert Path(f"/proc/{pid}").owner() == "vmw-web01"
        with autoremoved():
            libvirt.destroy("web01")
        assert {path: owner(path) for path in before} == before
        assert not HOOK.exists()
        assert not WRAPPERS.exists()
        if purges:
            wait_until_left(STATE, ["uids", "written"])
            assert users.account("vmw-web01") is None
        libvirt.virsh("create", "/dev/stdin", stdin=xml)
        assert Path(f"/proc/{libvirt.pid('web01')}").owner() == "libvirt-qemu"

    def test_one_that_is_defined_starts_plainly_after_it_has_stopped(
        self, warden: Warden, package: Package, libvirt: Libvirt, images: Path
    ) -> None:
        disk = qcow2(images / "web01.qcow2")
        before = owner(disk)
        libvirt.define(domain_xml("web01", disks=[Disk(disk)], emulator=None))
        with service():
            libvirt.start("web01")
        assert Path(f"/proc/{libvirt.pid('web01')}").owner() == "vmw-web01"
        package.remove()
        assert PLAIN_QEMU in libvirt.xml("web01", "--inactive")
        libvirt.destroy("web01")
        assert owner(disk) == before
        assert not WRAPPERS.exists()
        plainly_started(libvirt, "web01")


@contextmanager
def autoremoved() -> Iterator[None]:
    """A host from which apt's autoremove has taken what only virt-warden depended on."""
    modules = Path("/usr/lib/python3/dist-packages")
    ours = ("lxml", "nftables", "sh.py", "posix1e*", "cryptography", "jsonschema", "libvirt*")
    gone = {path for pattern in ours for path in modules.glob(pattern)}
    gone |= set(Path("/usr/lib").glob("*-linux-gnu/lib*xslt.so.*"))
    assert len(gone) >= len(ours) + 2
    hidden = {path: Path("/tmp") / path.name for path in gone}
    for path, aside in hidden.items():
        shutil.move(path, aside)
    try:
        assert run("/usr/bin/python3", "-c", "import lxml.etree", check=False).returncode != 0
        yield
    finally:
        for path, aside in hidden.items():
            shutil.move(aside, path)


class TestPurge:
    def test_users_that_own_nothing_are_removed_with_all_that_was_remembered(
        self, warden: Warden, package: Package, libvirt: Libvirt
    ) -> None:
        warden.started("web01")
        libvirt.destroy("web01")
        package.remove()
        assert users.account("vmw-web01") is not None
        said = package.purge(forget_uids=True)
        assert users.account("vmw-web01") is None
        assert users.group_id("vmw-web01") is None
        assert not STATE.exists()
        assert not LEDGER_COPY.exists()
        assert not Path("/run/virt-warden").exists()
        assert "left" not in said

    def test_the_ledger_stays_so_that_no_later_vm_gets_a_uid_again(
        self, warden: Warden, package: Package, libvirt: Libvirt
    ) -> None:
        warden.started("web01")
        libvirt.destroy("web01")
        former = users.account("vmw-web01")
        assert former is not None
        said = package.purge()
        assert users.account("vmw-web01") is None
        assert [path.name for path in STATE.iterdir()] == ["uids"]
        assert f"left: {STATE}/uids: the uids that no other VM may get" in said
        assert "files of yours" not in said
        # The copy alone is enough.
        (STATE / "uids").unlink()
        package.install()
        warden.enrolled("web01")
        libvirt.start("web01")
        again = users.account("vmw-web01")
        assert again is not None
        assert again.uid > former.uid

    @pytest.mark.parametrize("group_only", [False, True])
    def test_a_user_that_owns_a_file_stays_and_the_file_is_named(
        self, warden: Warden, package: Package, libvirt: Libvirt, images: Path, group_only: bool
    ) -> None:
        warden.started("web01")
        warden.started("db01")
        theirs = images / "left \x1b[2J behind"
        theirs.touch()
        account = users.account("vmw-web01")
        assert account is not None
        os.chown(theirs, 0 if group_only else account.uid, account.gid)
        libvirt.destroy("web01")
        libvirt.destroy("db01")
        said = package.purge()
        assert users.account("vmw-web01") is not None
        assert users.account("vmw-db01") is None
        assert f"left: user vmw-web01, who owns {images}/left ?[2J behind" in said
        assert (STATE / "uids").exists(), "the uid could be given to another VM"
        theirs.unlink()
        run("userdel", "vmw-web01")

    def test_drop_ins_of_the_admins_stay(self, package: Package) -> None:
        package.install()
        mine = Path("/etc/virt-warden/policy.d/50-mine.toml")
        mine.write_text('mode = "permissive"\n')
        said = package.purge()
        assert mine.exists()
        assert f"files of yours, such as {mine}" in said
        mine.unlink()

    @pytest.mark.parametrize("forget", [False, True])
    def test_while_a_vm_runs_what_it_needs_stays_and_goes_when_it_stops(
        self, warden: Warden, package: Package, libvirt: Libvirt, images: Path, forget: bool
    ) -> None:
        disk = qcow2(images / "disk.qcow2")
        before = owner(disk)
        warden.started("web01", disks=[Disk(disk)])
        warden.started("db01")
        libvirt.destroy("db01")
        said = package.purge(forget_uids=forget)
        assert "left: user vmw-web01, whose VM still runs" in said
        assert users.account("vmw-db01") is None
        libvirt.destroy("web01")
        assert owner(disk) == before
        wait_until_left(STATE, [] if forget else ["uids", "written"])
        assert users.account("vmw-web01") is None
        assert not HOOK.exists()
        plainly_started(libvirt, "web01")


def wait_until_left(directory: Path, names: list[str]) -> None:
    """The purge goes on by itself when the last VM has stopped: wait for its last act.

    Without names, the directory itself goes.
    """
    deadline = time.monotonic() + 30
    while directory.exists() != bool(names) or sorted(_names(directory)) != names:
        assert time.monotonic() < deadline, f"{directory} still has {list(directory.rglob('*'))}"
        time.sleep(0.02)


def _names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()] if directory.exists() else []

# SPDX-License-Identifier: GPL-2.0-or-later
"""Installed on a host that has VMs already: whatever started before starts after it."""

from __future__ import annotations

import glob
import json
import shutil
import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.host.command import run
from tests.host.domain import Disk, Vnc, domain_xml
from tests.host.images import qcow2
from tests.host.libvirt import Libvirt
from tests.host.service import service
from tests.libvirt.warden import Warden, set_policy, until
from tests.package.dpkg import Package
from virtwarden.paths import Paths

PATHS = Paths()
FOUND = PATHS.found
USER_NET = "<interface type='user'><mac address='52:54:00:00:00:07'/></interface>"
SPICE = "<graphics type='spice' autoport='yes' listen='127.0.0.1'/>"
WRAPPER = PATHS.wrapper_dir / "qemu-system-x86_64"
PLAIN_QEMU = "<emulator>/usr/bin/qemu-system-x86_64</emulator>"
WEBSOCKET = (
    "<graphics type='vnc' autoport='yes' websocket='-1'>"
    "<listen type='address' address='127.0.0.1'/></graphics>"
)
SERIAL = (
    "<serial type='tcp'><source mode='bind' host='127.0.0.1' service='4555'/>"
    "<protocol type='raw'/></serial>"
)
ARGUMENTS = (
    "<commandline xmlns='http://libvirt.org/schemas/domain/qemu/1.0'>"
    "<arg value='-boot'/><arg value='menu=on'/></commandline>"
)
LIBVIRTS_USER = "libvirt-qemu"
ODD = "a[b]*?\"c'd\\e&"


def ninep(directory: Path) -> str:
    return (
        "<filesystem type='mount' accessmode='mapped'>"
        f"<source dir='{directory}'/><target dir='share'/></filesystem>"
    )


@pytest.fixture
def downloads(images: Path) -> Path:
    """A directory of a web server, in which anybody may look up a file."""
    directory = images / "downloads"
    directory.mkdir(mode=0o755)
    shutil.chown(directory, "www-data", "www-data")
    return directory


@pytest.fixture
def ordinary(libvirt: Libvirt, images: Path, downloads: Path) -> Iterator[dict[str, str]]:
    """What a host has, by name: how each runs before the installation, which is plainly."""
    shared = images / "shared"
    shared.mkdir(mode=0o700)
    shutil.chown(shared, LIBVIRTS_USER, LIBVIRTS_USER)
    base = qcow2(images / "base.qcow2", mode=0o600)
    iso = downloads / "debian.iso"
    iso.write_bytes(bytes(2**20))
    own_qemu = images / "qemu"
    own_qemu.write_text('#!/bin/sh\nexec /usr/bin/qemu-system-x86_64 "$@"\n')
    own_qemu.chmod(0o755)
    anywhere = Vnc(listen="0.0.0.0")  # noqa: S104
    kernel = downloads / "vmlinuz"
    kernel.write_bytes(bytes(2**16))
    plain = images / "plain"
    plain.mkdir()
    run("mount", "-t", "ramfs", "ramfs", str(plain))
    plain.chmod(0o711)
    without_acls = qcow2(plain / "base.qcow2", mode=0o600)

    def disk(name: str) -> list[Disk]:
        return [Disk(qcow2(images / f"{name}.qcow2"))]

    made = {
        "plain": domain_xml("plain", disks=disk("plain")),
        "overlay": domain_xml(
            "overlay", disks=[Disk(qcow2(images / "overlay.qcow2", backing=base))]
        ),
        "spice": domain_xml("spice", disks=disk("spice"), extra_devices=SPICE),
        "folder": domain_xml("folder", disks=disk("folder"), extra_devices=ninep(shared)),
        "usernet": domain_xml("usernet", disks=disk("usernet"), extra_devices=USER_NET),
        "everywhere": domain_xml("everywhere", disks=disk("everywhere"), vnc=anywhere),
        "install": domain_xml(
            "install",
            disks=[
                *disk("install"),
                Disk(iso, target="hda", format="raw", readonly=True, device="cdrom"),
            ],
        ),
        "patched": domain_xml("patched", disks=disk("patched"), emulator=own_qemu),
        "password": domain_xml("password", disks=disk("password"), vnc=Vnc(password="abc123")),
        "websocket": domain_xml("websocket", disks=disk("websocket"), extra_devices=WEBSOCKET),
        "serial": domain_xml("serial", disks=disk("serial"), extra_devices=SERIAL),
        "arguments": domain_xml("arguments", disks=disk("arguments"), extra=ARGUMENTS),
        "kernel": domain_xml("kernel", disks=disk("kernel"), kernel=kernel),
        "noacl": domain_xml(
            "noacl", disks=[Disk(qcow2(images / "noacl.qcow2", backing=without_acls))]
        ),
        ODD: domain_xml(ODD, disks=disk("odd"), vnc=anywhere),
    }
    for name, xml in made.items():
        libvirt.define(xml)
        libvirt.start(name)
        libvirt.destroy(name)
    yield made
    libvirt.remove_domains()
    run("umount", "--lazy", str(plain))


def started(libvirt: Libvirt, name: str) -> str:
    """Start it; whom it runs as."""
    libvirt.start(name)
    return Path(f"/proc/{int(PATHS.qemu_pid(name).read_text())}").owner()


def is_enrolled(libvirt: Libvirt, name: str) -> bool:
    """Whether the service has enrolled it."""
    return "<warden:enrolment" in libvirt.xml(name, "--inactive")


def listed() -> set[str]:
    return {entry["match"] for entry in tomllib.loads(FOUND.read_text())["domain"]}


def plainly_disked(libvirt: Libvirt, images: Path, name: str, **parts: Any) -> None:
    """Define a domain with a disk of its own."""
    libvirt.define(domain_xml(name, disks=[Disk(qcow2(images / f"{name}.qcow2"))], **parts))


class TestInstalled:
    def test_whatever_started_before_starts_after_it(
        self, package: Package, libvirt: Libvirt, ordinary: dict[str, str]
    ) -> None:
        said = package.install()
        clean = {"plain", "overlay"}
        unsure = {"spice", "websocket"}
        assert {*map(glob.escape, ordinary)} - clean - unsure <= listed()
        assert not clean & listed()
        assert f"{len(listed())} of {len(ordinary)} domains would be refused" in said
        assert "virt-warden graduate NAME" in said
        warden = Warden(libvirt)
        with service():
            for name in ("plain", "overlay", "usernet", "everywhere", ODD):
                until(partial(is_enrolled, libvirt, name))
            libvirt.restart()
            ran_as = {name: started(libvirt, name) for name in ordinary}
        for name in ("plain", "overlay"):
            assert ran_as[name] == f"vmw-{name}"
            assert warden.status(name)["breaches"] == []
        assert ran_as["everywhere"] == "vmw-everywhere"
        # Of these the user of their own could not open all.
        for name in ("folder", "install", "patched", "kernel", "noacl", "serial", "arguments"):
            assert ran_as[name] == LIBVIRTS_USER, name
            assert "libvirt's user" in warden.status(name)["breaches"][0]

    def test_nor_do_they_fail_where_nothing_enrols_them_and_all_are_told_to_enrol(
        self, package: Package, libvirt: Libvirt, ordinary: dict[str, str]
    ) -> None:
        package.install()
        said = Warden(libvirt).command("enrol", "--all").stdout
        assert "folder is permissive, and its own user might not" in said
        for name in ordinary:
            started(libvirt, name)

    def test_a_saved_one_is_restored_as_it_was(
        self, package: Package, libvirt: Libvirt, ordinary: dict[str, str]
    ) -> None:
        for name in ("plain", "folder", "install"):
            libvirt.start(name)
            libvirt.virsh("managedsave", name)
        package.install()
        assert started(libvirt, "plain") == "vmw-plain"
        assert started(libvirt, "folder") == LIBVIRTS_USER
        assert started(libvirt, "install") == LIBVIRTS_USER
        for name in ("plain", "folder", "install"):
            assert not libvirt.has_saved_memory(name)

    def test_a_new_domain_is_enforcing_as_ever(
        self, package: Package, libvirt: Libvirt, images: Path
    ) -> None:
        plainly_disked(libvirt, images, "old", extra_devices=USER_NET)
        package.install()
        warden = Warden(libvirt)
        for name in ("old2", "new"):
            warden.enrolled(name, extra_devices=USER_NET)
            assert "nothing can filter" in warden.refusal(name)

    def test_with_nothing_to_find_there_is_no_file(
        self, package: Package, libvirt: Libvirt, images: Path
    ) -> None:
        plainly_disked(libvirt, images, "plain")
        assert "all 1 domains of this host can start in enforcing mode" in package.install()
        assert not FOUND.exists()

    def test_what_an_admin_wrote_before_wins_and_what_it_refuses_is_said(
        self, package: Package, libvirt: Libvirt, images: Path
    ) -> None:
        for name in ("strict", "lab", "other"):
            plainly_disked(libvirt, images, name, extra_devices=USER_NET)
        policy = PATHS.policy
        policy.parent.mkdir()
        policy.write_text(
            'managed = ["*", "!other"]\n[[domain]]\nmatch = "lab"\nmode = "permissive"\n'
            '[[domain]]\nmatch = "strict"\nmode = "enforcing"\n'
        )
        said = package.install()
        assert listed() == {"strict"}
        assert f"strict stays enforcing, as {policy}:7 says: its next start is refused" in said
        Warden(libvirt).enrolled("strict", extra_devices=USER_NET)
        assert "nothing can filter" in Warden(libvirt).refusal("strict")

    def test_a_broken_policy_is_said_and_the_review_comes_once_it_is_set_right(
        self, package: Package, libvirt: Libvirt, images: Path
    ) -> None:
        plainly_disked(libvirt, images, "old", extra_devices=USER_NET)
        PATHS.policy.parent.mkdir()
        PATHS.policy.write_text("mode = 5\n")
        assert "the domains are not reviewed yet" in package.install()
        assert not FOUND.exists()
        set_policy('managed = ["*"]\n')
        Warden(libvirt).command("package", "configure")
        assert listed() == {"old"}
        started(libvirt, "old")

    def test_where_the_system_is_not_up_the_first_start_of_the_service_does_it_once(
        self, package: Package, libvirt: Libvirt, images: Path
    ) -> None:
        plainly_disked(libvirt, images, "old", extra_devices=USER_NET)
        plainly_disked(libvirt, images, "clean")
        libvirt.stop()
        said = package.install()
        assert "reviewed when virt-warden.service starts for the first time" in said
        assert not FOUND.exists()
        with service():
            assert listed() == {"old"}
        # As libvirt starts what starts with the host, before anybody could have enrolled it.
        libvirt.restart()
        started(libvirt, "old")
        assert started(libvirt, "clean") == "vmw-clean"
        FOUND.unlink()
        with service():
            assert not FOUND.exists()

    def test_an_upgrade_makes_no_list(
        self, package: Package, libvirt: Libvirt, images: Path
    ) -> None:
        package.install(package.with_version("0.0.9"))
        plainly_disked(libvirt, images, "new", extra_devices=USER_NET)
        package.install()
        assert not FOUND.exists()


class TestGraduate:
    @pytest.fixture
    def warden(self, package: Package, libvirt: Libvirt, images: Path) -> Warden:
        """Two domains that installation found."""
        anywhere = Vnc(listen="0.0.0.0")  # noqa: S104
        plainly_disked(libvirt, images, "web01", extra_devices=USER_NET, vnc=anywhere)
        plainly_disked(libvirt, images, ODD, vnc=anywhere)
        package.install()
        assert listed() == {"web01", glob.escape(ODD)}
        return Warden(libvirt)

    def test_one_that_would_still_be_refused_stays_and_every_reason_is_told(
        self, warden: Warden
    ) -> None:
        before = FOUND.read_text()
        done = warden.command("graduate", "web01", check=False)
        assert done.returncode == 1
        first, *reasons = done.stdout.splitlines()
        assert first == "web01 stays permissive:"
        assert len(reasons) == 2
        assert all("; fix: " in reason for reason in reasons)
        assert FOUND.read_text() == before

    def test_check_and_the_audit_tell_of_each_and_its_way(self, warden: Warden) -> None:
        said = warden.command("check", check=False).stdout
        assert "web01 would be refused: NIC 52:54:00:00:00:07" in said
        assert "web01 would be refused: /etc/virt-warden/policy.toml" in said
        assert "once nothing of this is left: virt-warden graduate web01" in said
        items = json.loads(warden.command("audit", "--json", check=False).stdout)["items"]
        (found,) = [item for item in items if item["id"] == "host.policy.found"]
        assert (found["state"], "web01" in found["seen"]) == ("bad", True)
        (mode,) = [i for i in items if (i["id"], i["subject"]) == ("vm.mode", "web01")]
        assert mode["fix"] == "virt-warden graduate web01"

    def test_one_that_was_set_right_becomes_enforcing_and_what_an_admin_wrote_stays(
        self, warden: Warden, libvirt: Libvirt, images: Path
    ) -> None:
        FOUND.write_text(
            FOUND.read_text() + "# ask bob\n[waivers.w]\nitem = 'vm.mode'\n"
            "reason = 'so'\nuntil = '2030-01-01'\n"
        )
        libvirt.define(domain_xml("web01", disks=[Disk(images / "web01.qcow2")]))
        said = warden.command("check", check=False).stdout
        assert "nothing is against it any more: virt-warden graduate web01" in said
        assert warden.command("graduate", "web01").stdout == "web01 is enforcing\n"
        assert listed() == {glob.escape(ODD)}
        assert "# ask bob\n[waivers.w]\n" in FOUND.read_text()
        assert started(libvirt, "web01") == "vmw-web01"
        status = warden.status("web01")
        assert (status["mode"], status["breaches"]) == ("enforcing", [])

    def test_all_of_them_and_the_file_goes_with_the_last(
        self, warden: Warden, libvirt: Libvirt, images: Path
    ) -> None:
        libvirt.define(domain_xml(ODD, disks=[Disk(images / f"{ODD}.qcow2")]))
        assert warden.command("graduate", "--all", check=False).returncode == 1
        assert listed() == {"web01"}
        libvirt.undefine("web01")
        told = warden.command("check", check=False).stdout
        assert "web01 is permissive, and no domain any more: virt-warden graduate web01" in told
        said = warden.command("graduate", "--all").stdout
        assert said == "web01 is no domain any more; its entry is removed\n"
        assert not FOUND.exists()

    def test_a_file_that_was_edited_beyond_recognition_is_left_as_it_is(
        self, warden: Warden, libvirt: Libvirt, images: Path
    ) -> None:
        libvirt.define(domain_xml("web01", disks=[Disk(images / "web01.qcow2")]))
        for edited, said in (
            ('domain = [{match = "web01", mode = "permissive"}]\n', "edited by hand"),
            ('[[domain]]\nmatch = "web*"\nmode = "permissive"\n', "not for this domain alone"),
        ):
            FOUND.write_text(edited)
            done = warden.command("graduate", "web01", check=False)
            assert done.returncode == 1
            assert said in done.stderr
            assert FOUND.read_text() == edited

    def test_one_that_something_else_makes_permissive_is_not_called_enforcing(
        self, warden: Warden, libvirt: Libvirt, images: Path
    ) -> None:
        libvirt.define(domain_xml("web01", disks=[Disk(images / "web01.qcow2")]))
        before = FOUND.read_text()
        PATHS.policy.write_text('managed = ["*"]\nmode = "permissive"\n')
        done = warden.command("graduate", "web01", check=False)
        assert (
            f"{PATHS.policy}:2: without its entry it would be permissive all the same"
            in done.stderr
        )
        assert FOUND.read_text() == before


class TestRemoved:
    def test_a_version_whose_removal_noted_nothing_is_no_former_version_to_upgrade(
        self, package: Package, libvirt: Libvirt, images: Path
    ) -> None:
        package.install(package.with_version("0.0.9"))
        package.remove()
        assert not PATHS.review_due.exists(), "as 0.1.0 leaves it"
        plainly_disked(libvirt, images, "meanwhile", extra_devices=USER_NET)
        assert "1 of 1 domains would be refused" in package.install()
        assert listed() == {"meanwhile"}
        assert not PATHS.review_due.exists()
        started(libvirt, "meanwhile")

    def test_removal_keeps_the_list_purge_does_not_and_a_new_installation_adds_to_it(
        self, package: Package, libvirt: Libvirt, images: Path
    ) -> None:
        plainly_disked(libvirt, images, "old", extra_devices=USER_NET)
        package.install()
        FOUND.write_text(FOUND.read_text() + "# mine\n")
        package.remove()
        plainly_disked(libvirt, images, "meanwhile", extra_devices=USER_NET)
        package.install()
        assert listed() == {"old", "meanwhile"}
        assert "# mine\n" in FOUND.read_text()
        started(libvirt, "meanwhile")
        libvirt.destroy("meanwhile")
        package.purge(forget_uids=True)
        assert not FOUND.parent.parent.exists()
        assert not PATHS.state.exists()

    @pytest.mark.parametrize("runs", [True, False], ids=["libvirt-runs", "libvirt-is-off"])
    @pytest.mark.parametrize("wrapper", [WRAPPER, PATHS.emulators / WRAPPER.name], ids=str)
    def test_an_emulator_that_is_the_wrapper_of_a_domain_never_enrolled_becomes_qemu(
        self, package: Package, libvirt: Libvirt, images: Path, wrapper: Path, *, runs: bool
    ) -> None:
        package.install()
        set_policy("managed = []\n")
        disks = [Disk(qcow2(images / "web01.qcow2"))]
        libvirt.define(domain_xml("web01", disks=disks, emulator=wrapper))
        libvirt.virsh("snapshot-create-as", "web01", "first")
        libvirt.define(domain_xml("off", emulator=wrapper))
        if not runs:
            libvirt.stop()
        package.remove()
        libvirt.restart()
        assert not WRAPPER.parent.exists()
        for name in ("web01", "off"):
            assert PLAIN_QEMU in libvirt.xml(name, "--inactive")
            assert started(libvirt, name) == LIBVIRTS_USER
            libvirt.destroy(name)
        assert libvirt.virsh("snapshot-list", "web01", "--name").stdout.split() == ["first"]

    def test_nor_does_one_whose_enrolment_noted_the_wrapper_keep_it(
        self, package: Package, libvirt: Libvirt
    ) -> None:
        package.install()
        warden = Warden(libvirt)
        warden.enrolled("web01", emulator=WRAPPER)
        noted = libvirt.xml("web01", "--inactive").replace(
            "<warden:emulator>/usr/bin/", f"<warden:emulator>{WRAPPER.parent}/"
        )
        libvirt.define(noted)
        package.remove()
        assert PLAIN_QEMU in libvirt.xml("web01", "--inactive")
        started(libvirt, "web01")

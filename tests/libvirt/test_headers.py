# SPDX-License-Identifier: GPL-2.0-or-later
"""An image's header is believed once, and never again after a VM's user could write the image."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.host.command import run
from tests.host.domain import Disk, domain_xml
from tests.host.images import qcow2, raw
from tests.host.install import install
from tests.host.service import Service
from tests.host.syslog import Syslog
from tests.libvirt.warden import ENFORCING, PATHS, Warden, as_user, set_policy, until
from virtwarden.package.removal import remove
from virtwarden.system import users, written


@pytest.fixture
def theirs(warden: Warden, images: Path) -> Path:
    """Another domain's disk, which its user wrote; the domain is off."""
    disk = qcow2(images / "db01.qcow2")
    warden.started("db01", disks=[Disk(disk)])
    warden.libvirt.destroy("db01")
    return disk


def forge(image: Path, base: Path | str, form: str = "qcow2") -> None:
    """What code that took over a QEMU can write into its own image."""
    run("qemu-img", "rebase", "-u", "-b", str(base), "-F", form, str(image))


def ran(warden: Warden, images: Path, base: Path | None = None) -> Path:
    """The disk of a domain that ran once; its user could write it."""
    disk = qcow2(images / "web01.qcow2", backing=base)
    warden.started("web01", disks=[Disk(disk)])
    warden.libvirt.destroy("web01")
    return disk


def enrol(warden: Warden, name: str = "web01") -> str:
    """What the admin reads where a domain is enrolled, or refused."""
    done = warden.command("enrol", name, check=False)
    assert "fix:" in done.stderr + done.stdout or done.returncode == 0
    return done.stdout + done.stderr


def reaches(warden: Warden, file: Path) -> bool:
    """Whether web01 gets at a file by its start, whatever becomes of the start."""
    warden.libvirt.virsh("start", "web01", check=False)
    has_user = users.account("vmw-web01") is not None
    found = has_user and as_user("vmw-web01", lambda: os.open(file, os.O_RDONLY)) == ""
    warden.libvirt.virsh("destroy", "web01", check=False)
    return found


def retold(warden: Warden, old: Path, new: Path) -> None:
    """The admin names the image otherwise in the domain's XML."""
    edit = f"EDITOR=sed -i -e '/<source file/s/{old.name}/{new.name}/'"
    run("env", edit, "virsh", "edit", "web01")


def test_a_forged_header_is_not_believed_after_unenrolment(
    warden: Warden, images: Path, theirs: Path
) -> None:
    disk = ran(warden, images)
    warden.command("unenrol", "web01")
    forge(disk, theirs)
    said = enrol(warden)
    assert f"{disk} now says that it is based on {theirs}" in said
    assert f'qemu-img rebase -u -f qcow2 -b "" {disk}' in said
    assert "<backingStore" in said
    assert not reaches(warden, theirs)


def test_a_forged_header_is_not_believed_of_an_image_that_was_moved(
    warden: Warden, images: Path, theirs: Path
) -> None:
    disk = ran(warden, images)
    forge(disk, theirs)
    disk.rename(images / "moved.qcow2")
    retold(warden, disk, images / "moved.qcow2")
    assert "now says that it is based on" in enrol(warden)
    assert not reaches(warden, theirs)


def test_nor_by_the_service_alone(
    warden: Warden, images: Path, theirs: Path, syslog: Syslog, service: Service
) -> None:
    disk = qcow2(images / "web01.qcow2")
    syslog.clear()
    warden.libvirt.define(domain_xml("web01", disks=[Disk(disk)]))
    syslog.wait_for("event=enrolled domain=web01 ", 20)
    warden.libvirt.start("web01")
    warden.libvirt.destroy("web01")
    forge(disk, theirs)
    disk.rename(images / "moved.qcow2")
    syslog.clear()
    retold(warden, disk, images / "moved.qcow2")
    assert "now says that it is based on" in syslog.wait_for("event=not-enrolled", 20)
    assert not reaches(warden, theirs)


def test_nor_after_removal_and_installation(warden: Warden, images: Path, theirs: Path) -> None:
    disk = ran(warden, images)
    words: list[str] = []
    try:
        assert remove(PATHS, words.append, words.append)
    finally:
        install()
    shutil.rmtree(PATHS.state / "domains", ignore_errors=True)
    for name in ("web01", "db01"):
        run("userdel", f"vmw-{name}")  # as purge does
    forge(disk, theirs)
    assert "now says that it is based on" in enrol(warden)
    assert "<emulator>/usr/bin" in warden.libvirt.xml("web01", "--inactive")


@pytest.mark.parametrize("how", ["cp -a", "mv"])
def test_nor_where_the_image_went_to_another_file_system(
    warden: Warden, images: Path, theirs: Path, how: str
) -> None:
    disk = ran(warden, images)
    forge(disk, theirs)
    other = images / "other"
    other.mkdir()
    run("mount", "-t", "tmpfs", "tmpfs", str(other))
    try:
        new = other / "moved.qcow2"
        run(*how.split(), str(disk), str(new))
        xml = domain_xml("web01", disks=[Disk(new)])
        warden.libvirt.define(xml)
        assert "now says that it is based on" in enrol(warden)
    finally:
        run("umount", str(other))


def test_a_header_that_names_another_domains_disk_is_refused_even_where_it_is_new(
    warden: Warden, images: Path, theirs: Path
) -> None:
    """A copy of an image that a guest wrote is a file that nobody remembers."""
    disk = ran(warden, images)
    forge(disk, theirs)
    copy = images / "copy.qcow2"
    copy.write_bytes(disk.read_bytes())
    warden.libvirt.define(domain_xml("web01", disks=[Disk(copy)]))
    said = enrol(warden)
    assert f"{copy} says that it is based on {theirs}, which is a disk that domain" in said
    assert not reaches(warden, theirs)


def test_nor_does_it_get_the_disk_of_a_domain_without_virt_warden(
    warden: Warden, images: Path
) -> None:
    theirs = qcow2(images / "plain.qcow2")
    warden.libvirt.define(domain_xml("plain", disks=[Disk(theirs)]))
    image = qcow2(images / "web01.qcow2", backing=theirs)
    warden.libvirt.define(domain_xml("web01", disks=[Disk(image)]))
    assert "which is a disk of domain plain" in enrol(warden)


def test_a_base_that_the_admin_wrote_into_the_xml_is_taken(
    warden: Warden, images: Path, theirs: Path
) -> None:
    image = qcow2(images / "web01.qcow2", backing=theirs)
    xml = domain_xml("web01", disks=[Disk(image)])
    warden.libvirt.define(xml)
    said = enrol(warden)
    (element,) = re.findall(r"(<backingStore .*</backingStore>)", said)
    warden.libvirt.define(xml.replace("<target", f"{element}<target", 1))
    assert f"is based on {theirs}" in enrol(warden)
    warden.libvirt.start("web01")
    assert warden.status("web01")["breaches"] == []


def test_a_base_that_another_domain_came_to_write_is_refused_at_the_start(
    warden: Warden, images: Path
) -> None:
    base = qcow2(images / "base.qcow2")
    warden.enrolled("web01", disks=[Disk(qcow2(images / "web01.qcow2", backing=base))])
    warden.started("db01", disks=[Disk(base)])
    warden.libvirt.destroy("db01")
    assert f"its base {base} is a disk that domain" in warden.refusal("web01")


def test_what_was_below_an_image_is_remembered_with_it(warden: Warden, images: Path) -> None:
    base = qcow2(images / "base.qcow2")
    disk = ran(warden, images, base)
    warden.command("unenrol", "web01")
    assert f"is based on {base}" in enrol(warden)
    warden.libvirt.start("web01")
    warden.libvirt.destroy("web01")
    warden.command("unenrol", "web01")
    new = qcow2(images / "new-base.qcow2")
    run("qemu-img", "rebase", "-u", "-b", str(new), "-F", "qcow2", str(disk))
    said = enrol(warden)
    assert f"qemu-img rebase -u -f qcow2 -F qcow2 -b {base} {disk}" in said
    run("qemu-img", "rebase", "-u", "-b", str(base), "-F", "qcow2", str(disk))
    assert f"is based on {base}" in enrol(warden)


def test_a_raw_disk_does_not_become_an_image_with_a_base(
    warden: Warden, images: Path, theirs: Path
) -> None:
    """A guest writes all of its raw disk: also what looks like a header."""
    disk = raw(images / "web01.img")
    warden.started("web01", disks=[Disk(disk, format="raw")])
    warden.libvirt.destroy("web01")
    inode = disk.stat().st_ino
    disk.write_bytes(qcow2(images / "forged.qcow2", backing=theirs).read_bytes())
    assert disk.stat().st_ino == inode
    warden.libvirt.define(domain_xml("web01", disks=[Disk(disk)]))
    assert "as an image of format raw" in enrol(warden)


def test_an_overlay_of_a_snapshot_is_remembered_with_the_disk_below_it(
    warden: Warden, images: Path, theirs: Path
) -> None:
    set_policy(f'{ENFORCING}[landlock]\ndirectories = ["{images}"]\n')
    disk, overlay = qcow2(images / "web01.qcow2"), images / "overlay.qcow2"
    warden.started("web01", disks=[Disk(disk)])
    warden.overlay("web01", overlay)
    warden.libvirt.destroy("web01")
    assert f"is based on {disk}" in enrol(warden)
    warden.libvirt.start("web01")
    warden.libvirt.destroy("web01")
    warden.command("unenrol", "web01")
    xml = domain_xml("web01", disks=[Disk(overlay)])
    warden.libvirt.define(xml)
    assert f"is based on {disk}" in enrol(warden)
    warden.command("unenrol", "web01")
    warden.libvirt.define(xml)
    forge(overlay, theirs)
    assert f"it was based on {disk}" in enrol(warden)


def test_an_image_that_was_made_whole_again_is_new(warden: Warden, images: Path) -> None:
    """qemu-img writes the header of what it converts."""
    base = qcow2(images / "base.qcow2")
    disk = ran(warden, images, base)
    whole = images / "whole.qcow2"
    run("qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", str(disk), str(whole))
    warden.libvirt.define(domain_xml("web01", disks=[Disk(whole)]))
    assert "is enrolled" in enrol(warden)
    warden.libvirt.start("web01")


def test_what_is_remembered_is_nobodys_but_roots(warden: Warden, images: Path) -> None:
    disk = qcow2(images / "web01.qcow2")
    warden.started("web01", disks=[Disk(disk)])
    name = "trusted.virt-warden.written"
    assert name in os.listxattr(disk)
    assert as_user("vmw-web01", lambda: disk.write_bytes(b"anything")) == ""
    assert as_user("vmw-web01", lambda: list(PATHS.written.iterdir())) == "PermissionError"
    assert as_user("vmw-web01", lambda: os.setxattr(disk, name, b"null")) == "PermissionError"
    assert as_user("vmw-web01", lambda: os.removexattr(disk, name)) != ""
    assert name in os.listxattr(disk)


def test_a_header_is_not_believed_where_what_is_remembered_is_damaged(
    warden: Warden, images: Path, theirs: Path
) -> None:
    disk = ran(warden, images)
    warden.command("unenrol", "web01")
    shutil.rmtree(PATHS.written)
    os.setxattr(disk, "trusted.virt-warden.written", b"{")
    forge(disk, theirs)
    assert f"what is remembered of {disk} is damaged" in enrol(warden)
    assert not reaches(warden, theirs)


SCSI = "<controller type='scsi' model='virtio-scsi'/>"


def test_nor_of_an_image_that_was_taken_from_a_vm_while_it_ran(
    warden: Warden, images: Path, syslog: Syslog, service: Service
) -> None:
    del service
    set_policy(f'{ENFORCING}[landlock]\ndirectories = ["{images}"]\n')
    secret, image = raw(images / "backup.raw"), qcow2(images / "attached.qcow2")
    own = Disk(qcow2(images / "web01.qcow2"))
    syslog.clear()
    warden.started("web01", disks=[own], extra_devices=SCSI)
    syslog.wait_for("event=verified domain=web01 ", 20)
    how = ("--live", "--subdriver", "qcow2", "--targetbus", "scsi")
    warden.libvirt.virsh("attach-disk", "web01", str(image), "sdb", *how)
    until(lambda: written.look_up(PATHS.written, str(image)) is not None)
    warden.libvirt.virsh("detach-disk", "web01", "sdb", "--live")
    until(lambda: image.stat().st_uid == 0)
    forge(image, secret, "raw")
    warden.libvirt.destroy("web01")
    warden.libvirt.define(domain_xml("db01", disks=[Disk(image)]))
    said = enrol(warden, "db01")
    assert f"{image} now says that it is based on {secret}" in said


def test_nor_of_a_copy_that_a_vm_left_again(
    warden: Warden, images: Path, syslog: Syslog, service: Service
) -> None:
    """virsh blockcopy, to one place and then on to another; and one that was given up."""
    del service
    set_policy(f'{ENFORCING}[landlock]\ndirectories = ["{images}"]\n')
    secret = raw(images / "backup.raw")
    syslog.clear()
    warden.started("web01", disks=[Disk(qcow2(images / "web01.qcow2"))])
    syslog.wait_for("event=verified domain=web01 ", 20)
    left = []
    for name, end in (("first", "--pivot"), ("second", "--pivot"), ("third", "--abort")):
        copy = images / f"{name}.qcow2"
        how = ("--wait", "--transient-job", "--format", "qcow2")
        warden.libvirt.virsh("blockcopy", "web01", "vda", str(copy), *how)
        until(lambda copy=copy: written.look_up(PATHS.written, str(copy)) is not None)
        warden.libvirt.virsh("blockjob", "web01", "vda", end)
        left.append(copy)
    warden.libvirt.destroy("web01")
    for copy in left:
        forge(copy, secret, "raw")
        warden.libvirt.define(domain_xml("db01", disks=[Disk(copy)]))
        assert "which the VM that" in enrol(warden, "db01") or "its own header" in enrol(
            warden, "db01"
        )


def test_a_header_that_a_guest_forged_is_told_at_the_stop(
    warden: Warden, images: Path, syslog: Syslog
) -> None:
    """libvirt believes it where the image is attached to a running domain."""
    disk = qcow2(images / "web01.qcow2")
    secret = raw(images / "backup.raw")
    head = qcow2(images / "forged.qcow2", backing=secret, backing_format="raw").read_bytes()[:4096]
    warden.started("web01", disks=[Disk(disk)])
    account = "vmw-web01"
    assert as_user(account, lambda: os.pwrite(os.open(disk, os.O_WRONLY), head, 0)) == ""
    warden.libvirt.destroy("web01")
    said = syslog.wait_for("event=header-differs domain=web01 ")
    assert f"{disk} says that it is based on {secret}" in said
    assert f"qemu-img rebase -u -f qcow2 -b '' {disk}" in said


def test_an_honest_header_is_not_told(warden: Warden, images: Path, syslog: Syslog) -> None:
    base = qcow2(images / "base.qcow2")
    disk = qcow2(images / "web01.qcow2", backing=base)
    set_policy(f'{ENFORCING}[landlock]\ndirectories = ["{images}"]\n')
    warden.started("web01", disks=[Disk(disk)])
    warden.overlay("web01", images / "overlay.qcow2")
    warden.libvirt.destroy("web01")
    warden.libvirt.start("web01")
    commit = ("blockcommit", "web01", "vda", "--active", "--shallow", "--pivot", "--wait")
    warden.libvirt.virsh(*commit)
    warden.libvirt.destroy("web01")
    syslog.clear()
    warden.libvirt.start("web01")
    warden.libvirt.destroy("web01")
    warden.libvirt.start("web01")
    syslog.wait_for("event=verified domain=web01 ", 20)
    syslog.wait_for("event=undone domain=web01 ")
    assert not any("header-differs" in line for line in syslog.lines())

# SPDX-License-Identifier: GPL-2.0-or-later
"""A medium that libvirt left to a VM's user, and what the next VM gets of what it did to it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from tests.host.command import run
from tests.host.domain import Disk, domain_xml
from tests.host.images import qcow2, raw
from tests.libvirt.warden import ENFORCING, Warden, as_user, set_policy
from virtwarden.system import users


def write(file: Path) -> str:
    def act() -> None:
        handle = os.open(file, os.O_RDWR)
        os.pwrite(handle, b"evil", 0)
        os.close(handle)

    return as_user("vmw-web01", act)


def uid_of(name: str) -> int:
    account = users.account(f"vmw-{name}")
    assert account is not None
    return account.uid


def insert(warden: Warden, images: Path) -> tuple[Disk, Path]:
    """web01 runs with a CD-ROM drive, and libvirt has given it the medium in it; both."""
    set_policy(f'{ENFORCING}[landlock]\ndirectories = ["{images}"]\n')
    first, left = (raw(images / f"{name}.iso", mode=0o444) for name in ("one", "two"))
    drive = Disk(first, target="sda", format="raw", readonly=True, device="cdrom")
    warden.started("web01", disks=[drive])
    warden.libvirt.virsh("change-media", "web01", "sda", "--live", str(left), "--update")
    return drive, left


def eject(warden: Warden) -> None:
    """Take the medium out, and stop web01."""
    warden.libvirt.virsh("change-media", "web01", "sda", "--live", "--eject", "--force")
    warden.libvirt.destroy("web01")


def test_an_installer_that_a_vm_could_write_is_not_given_to_the_next(
    warden: Warden, images: Path
) -> None:
    drive, left = insert(warden, images)
    as_user("vmw-web01", lambda: left.chmod(0o600))
    assert write(left) == ""
    eject(warden)
    warden.enrolled("db01", disks=[replace(drive, path=left)])
    line = warden.refusal("db01")
    assert "which can have written it" in line
    assert f"chown root: {left}" in line


def test_no_vm_writes_a_left_disk_after_another_used_it(warden: Warden, images: Path) -> None:
    _, left = insert(warden, images)
    assert as_user("vmw-web01", lambda: left.chmod(0o666)) == ""
    eject(warden)
    warden.started("db01", disks=[Disk(left, format="raw")])
    warden.libvirt.destroy("db01")
    warden.libvirt.start("web01")
    assert write(left) != "", "web01 writes db01's disk"


def test_what_a_removed_vm_set_on_a_left_disk_is_nobodys_right_either(
    warden: Warden, images: Path
) -> None:
    warden.started("app01")
    accomplice = uid_of("app01")
    _, left = insert(warden, images)

    def let_others() -> None:
        left.chmod(0o666)
        run("setfacl", "--modify", f"u:{accomplice}:rw", str(left))

    assert as_user("vmw-web01", let_others) == ""
    eject(warden)
    warden.command("unenrol", "web01")
    warden.libvirt.virsh("undefine", "web01")
    warden.started("db01", disks=[Disk(left, format="raw")])
    warden.libvirt.destroy("db01")
    assert left.stat().st_uid == 0
    assert as_user("vmw-app01", lambda: os.open(left, os.O_RDWR)) == "PermissionError"


def test_nor_is_the_header_believed_of_an_image_that_a_removed_vm_owns(
    warden: Warden, images: Path
) -> None:
    warden.started("web01")
    former = uid_of("web01")
    warden.libvirt.destroy("web01")
    warden.command("unenrol", "web01")
    secret = raw(images / "backup.raw")
    left = qcow2(images / "left.qcow2", backing=secret, backing_format="raw")
    os.chown(left, former, former)  # as libvirt leaves it where the host loses power
    warden.libvirt.define(domain_xml("db01", disks=[Disk(left)]))
    done = warden.command("enrol", "db01", check=False)
    assert "a VM's user owns it, or did" in done.stderr

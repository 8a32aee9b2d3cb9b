# SPDX-License-Identifier: GPL-2.0-or-later
"""A medium that libvirt left to a VM's user, and what the next VM gets of what it did to it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from tests.host.domain import Disk
from tests.host.images import raw
from tests.libvirt.warden import ENFORCING, Warden, as_user, set_policy


def write(file: Path) -> str:
    def act() -> None:
        handle = os.open(file, os.O_RDWR)
        os.pwrite(handle, b"evil", 0)
        os.close(handle)

    return as_user("vmw-web01", act)


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

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


def test_an_installer_that_a_vm_could_write_is_not_given_to_the_next(
    warden: Warden, images: Path
) -> None:
    set_policy(f'{ENFORCING}[landlock]\ndirectories = ["{images}"]\n')
    first, second = (raw(images / f"{name}.iso", mode=0o444) for name in ("one", "two"))
    drive = Disk(first, target="sda", format="raw", readonly=True, device="cdrom")
    warden.started("web01", disks=[drive])
    change = ("change-media", "web01", "sda", "--live")
    warden.libvirt.virsh(*change, str(second), "--update")
    as_user("vmw-web01", lambda: second.chmod(0o600))
    assert write(second) == ""
    warden.libvirt.virsh(*change, "--eject", "--force")
    warden.libvirt.destroy("web01")
    warden.enrolled("db01", disks=[replace(drive, path=second)])
    line = warden.refusal("db01")
    assert "which can have written it" in line
    assert f"chown root: {second}" in line


def test_no_vm_writes_a_left_disk_after_another_used_it(warden: Warden, images: Path) -> None:
    set_policy(f'{ENFORCING}[landlock]\ndirectories = ["{images}"]\n')
    first, second = (raw(images / f"{name}.iso", mode=0o444) for name in ("one", "two"))
    drive = Disk(first, target="sda", format="raw", readonly=True, device="cdrom")
    warden.started("web01", disks=[drive])
    change = ("change-media", "web01", "sda", "--live")
    warden.libvirt.virsh(*change, str(second), "--update")
    assert as_user("vmw-web01", lambda: second.chmod(0o666)) == ""
    warden.libvirt.virsh(*change, "--eject", "--force")
    warden.libvirt.destroy("web01")
    warden.started("db01", disks=[Disk(second, format="raw")])
    warden.libvirt.destroy("db01")
    warden.libvirt.start("web01")
    assert write(second) != "", "web01 writes db01's disk"

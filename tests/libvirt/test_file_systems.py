# SPDX-License-Identifier: GPL-2.0-or-later
"""File systems that cannot do what a guard needs: what is said, and that nothing is stuck."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.host.command import run
from tests.host.domain import Disk
from tests.host.images import qcow2, raw
from tests.libvirt.warden import ENFORCING, PATHS, Warden, as_user, owner, set_policy


@contextmanager
def _mounted(directory: Path, kind: str, *options: str) -> Iterator[Path]:
    directory.mkdir()
    run("mount", "-t", kind, *options, kind, str(directory))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        run("umount", "--lazy", str(directory))


def _iso(path: Path) -> Disk:
    return Disk(path, target="sda", format="raw", readonly=True, device="cdrom")


def _remount(directory: Path, how: str) -> None:
    run("mount", "-o", f"remount,{how}", str(directory))


def test_an_iso_that_everybody_can_read_starts_from_a_read_only_mount(
    warden: Warden, images: Path
) -> None:
    with _mounted(images / "media", "tmpfs") as media:
        media.chmod(0o755)
        iso = raw(media / "install.iso", mode=0o644)
        _remount(media, "ro")
        before = owner(iso)
        warden.started("web01", disks=[_iso(iso)])
        assert as_user("vmw-web01", lambda: os.open(iso, os.O_RDONLY)) == ""
        assert warden.status("web01")["breaches"] == []
        warden.libvirt.destroy("web01")
        assert owner(iso) == before
        assert not list(PATHS.state.glob("domains/*/run.journal"))


def test_an_iso_that_cannot_be_opened_there_is_refused_and_blocks_nothing_once_it_is_out(
    warden: Warden, images: Path
) -> None:
    disk = Disk(qcow2(images / "web01.qcow2"))
    with _mounted(images / "media", "tmpfs") as media:
        iso = raw(media / "install.iso", mode=0o600)
        _remount(media, "ro")
        warden.enrolled("web01", disks=[disk, _iso(iso)])
        line = warden.refusal("web01")
        assert str(iso) in line
        assert "Read-only file system" in line
        assert "mount it read-write" in line
        assert "/proc/self" not in line
        warden.libvirt.virsh("change-media", "web01", "sda", "--eject", "--config")
        warden.libvirt.start("web01")
        warden.libvirt.destroy("web01")


def test_a_file_system_that_becomes_read_only_under_a_vm_blocks_no_later_start(
    warden: Warden, images: Path
) -> None:
    """As ext4 does after an error of the disk."""
    disk = Disk(qcow2(images / "web01.qcow2"))
    with _mounted(images / "media", "tmpfs") as media:
        iso = raw(media / "install.iso", mode=0o600)
        warden.started("web01", disks=[disk, _iso(iso)])
        _remount(media, "ro")
        warden.libvirt.destroy("web01")
        warden.libvirt.virsh("change-media", "web01", "sda", "--eject", "--config")
        warden.libvirt.start("web01")
        warden.libvirt.destroy("web01")


@pytest.mark.parametrize("mode", ["enforcing", "permissive"])
def test_a_base_that_everybody_can_read_needs_no_acl(
    warden: Warden, images: Path, mode: str
) -> None:
    set_policy(f'mode = "{mode}"\n{ENFORCING}')
    with _mounted(images / "plain", "ramfs") as plain:
        base = qcow2(plain / "base.qcow2", mode=0o644)
        before = owner(base)
        warden.started("web01", disks=[Disk(qcow2(images / "web01.qcow2", backing=base))])
        assert owner(base) == before
        assert warden.status("web01")["breaches"] == []
        assert as_user("vmw-web01", lambda: os.open(base, os.O_RDWR)) == "PermissionError"
        warden.libvirt.destroy("web01")


def test_another_base_where_there_are_no_acls_is_refused_with_the_ways_out(
    warden: Warden, images: Path
) -> None:
    with _mounted(images / "plain", "ramfs") as plain:
        base = qcow2(plain / "base.qcow2", mode=0o640)
        before = owner(base)
        warden.enrolled("web01", disks=[Disk(qcow2(images / "web01.qcow2", backing=base))])
        line = warden.refusal("web01")
        assert f"{base} cannot have an ACL" in line
        assert f"chmod o+r {base}" in line
        assert owner(base) == before
        base.chmod(0o644)
        warden.libvirt.start("web01")
        warden.libvirt.destroy("web01")


def test_a_disk_of_its_own_needs_no_acls(warden: Warden, images: Path) -> None:
    with _mounted(images / "plain", "ramfs") as plain:
        disk = qcow2(plain / "web01.qcow2")
        before = owner(disk)
        warden.started("web01", disks=[Disk(disk)])
        assert warden.status("web01")["breaches"] == []
        warden.libvirt.destroy("web01")
        assert owner(disk) == before

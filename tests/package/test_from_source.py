# SPDX-License-Identifier: GPL-2.0-or-later
"""`make install` and `make uninstall` do what the package does, by the same scripts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.command import run
from tests.host.domain import Disk
from tests.host.images import qcow2
from tests.host.libvirt import Libvirt
from tests.host.namespace import CHECKOUT
from tests.libvirt.warden import Warden
from tests.package.dpkg import Package
from virtwarden.system import users

UNINSTALL = str(CHECKOUT / "packaging" / "uninstall.sh")


@pytest.fixture
def warden(libvirt: Libvirt, quick_host: None) -> Iterator[Warden]:
    run("make", "-C", str(CHECKOUT), "install")
    yield Warden(libvirt)
    libvirt.remove_domains()
    run("env", "VIRT_WARDEN_FORGET_UIDS=1", UNINSTALL, "--purge")


def files_below(*tops: str) -> set[str]:
    """Every file, but for what Python compiled."""
    found = run("find", *tops, "!", "-type", "d", "!", "-name", "*.pyc", "-path", "*virt-warden*")
    return set(found.stdout.split())


def test_the_same_files_are_placed(package: Package) -> None:
    package.install()
    # dpkg's own: who made it, what recompiles when Python is upgraded, what systemd starts.
    own = tuple(f"/usr/share/doc/virt-warden/{name}" for name in ("changelog", "copyright"))
    own += ("/usr/share/python3/", "/etc/systemd/", "/var/")
    packaged = {path for path in files_below("/etc", "/usr", "/var") if not path.startswith(own)}
    package.purge()
    run("make", "-C", str(CHECKOUT), "install")
    placed = {path for path in files_below("/etc", "/usr", "/var") if not path.startswith(own)}
    run(UNINSTALL, "--purge")
    assert {path.removesuffix(".gz") for path in packaged} == placed
    assert not {path for path in files_below("/etc", "/usr", "/var") if not path.startswith(own)}


def test_with_a_vm_running_it_can_be_uninstalled(
    warden: Warden, libvirt: Libvirt, images: Path
) -> None:
    disk = qcow2(images / "disk.qcow2")
    warden.started("web01", disks=[Disk(disk)])
    run(UNINSTALL)
    libvirt.restart()
    libvirt.destroy("web01")
    assert disk.stat().st_uid == os.getuid() == 0
    assert users.account("vmw-web01") is not None
    libvirt.start("web01")
    assert Path(f"/proc/{libvirt.pid('web01')}").owner() == "libvirt-qemu"
    libvirt.destroy("web01")
    run(UNINSTALL, "--purge")
    assert users.account("vmw-web01") is None

# SPDX-License-Identifier: GPL-2.0-or-later
"""virt-install(1): guarded from the first boot on, in both phases of an installation."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import libvirt
import pytest

from tests.host.command import run
from tests.host.events import lifecycle_events
from tests.host.images import qcow2, raw
from tests.host.service import Service
from tests.libvirt.warden import Warden, set_policy
from virtwarden.changes import journal
from virtwarden.paths import Paths

PATHS = Paths()
PLAIN = (
    *("--virt-type", "qemu", "--memory", "64", "--osinfo", "detect=off,require=off"),
    "--noautoconsole",
)
COMMON = (*PLAIN, "--graphics", "vnc")


def install(*options: str) -> subprocess.CompletedProcess[str]:
    return run("virt-install", *COMMON, *options, check=False)


@pytest.fixture
def iso(images: Path) -> Path:
    return raw(images / "install.iso", size="64K", mode=0o644)


def is_guarded(warden: Warden, name: str) -> bool:
    standing = warden.status(name)
    assert standing["breaches"] == []
    return bool(standing["state"] == "running" and standing["user"].startswith(f"vmw-{name}"))


def test_an_image_that_is_imported_boots_under_guard(
    warden: Warden, service: Service, images: Path, bridge: str
) -> None:
    disk = qcow2(images / "web01.qcow2")
    done = install(
        "--name", "web01", "--disk", str(disk), "--import", "--network", f"bridge={bridge}"
    )
    assert done.returncode == 0, done.stderr
    assert is_guarded(warden, "web01")
    assert disk.stat().st_uid == warden.status("web01")["uid"]
    warden.libvirt.destroy("web01")
    warden.libvirt.start("web01")
    assert is_guarded(warden, "web01")


def test_the_displays_and_channels_that_it_makes_by_itself_are_guarded(
    warden: Warden, service: Service, images: Path
) -> None:
    disk = qcow2(images / "web01.qcow2")
    options = ("--name", "web01", "--disk", str(disk), "--import", "--network", "none")
    done = run("virt-install", *PLAIN, "--graphics", "spice", *options, check=False)
    assert done.returncode == 0, done.stderr
    assert "type='spicevmc'" in warden.libvirt.xml("web01")
    assert is_guarded(warden, "web01")
    warden.libvirt.destroy("web01")
    warden.libvirt.start("web01")
    assert is_guarded(warden, "web01")


def test_an_overlay_is_imported_with_its_base(
    warden: Warden, service: Service, images: Path
) -> None:
    base = qcow2(images / "base.qcow2")
    overlay = qcow2(images / "web01.qcow2", backing=base, backing_format="qcow2")
    done = install("--name", "web01", "--disk", str(overlay), "--import", "--network", "none")
    assert done.returncode == 0, done.stderr
    assert is_guarded(warden, "web01")
    assert base.stat().st_uid == 0
    warden.libvirt.destroy("web01")


def test_an_installation_from_a_cdrom_is_guarded_in_both_phases(
    warden: Warden, service: Service, images: Path, iso: Path
) -> None:
    disk = images / "web01.qcow2"
    ended: list[subprocess.CompletedProcess[str]] = []

    def wait_for_the_installation() -> None:
        options = ("--cdrom", str(iso), "--disk", f"{disk},size=1", "--network", "none")
        ended.append(install("--name", "web01", *options, "--wait", "1"))

    installing = threading.Thread(target=wait_for_the_installation)
    with lifecycle_events() as events:
        installing.start()
        events.wait_for("web01", libvirt.VIR_DOMAIN_EVENT_DEFINED)
        assert is_guarded(warden, "web01")
        assert str(iso) in warden.libvirt.xml("web01")
        assert str(iso) not in warden.libvirt.xml("web01", "--inactive")
        # libvirt takes this for the guest's power-off, with which an installer ends.
        os.kill(warden.libvirt.pid("web01"), signal.SIGTERM)
        events.wait_for("web01", libvirt.VIR_DOMAIN_EVENT_STOPPED)
        events.wait_for("web01", libvirt.VIR_DOMAIN_EVENT_STARTED)
    installing.join()
    (done,) = ended
    assert done.returncode == 0, done.stderr
    assert is_guarded(warden, "web01")
    assert str(iso) not in warden.libvirt.xml("web01")


def test_an_installation_whose_kernel_is_fetched_and_removed_leaves_nothing(
    warden: Warden, service: Service, images: Path
) -> None:
    tree = images / "tree"
    tree.mkdir()
    (tree / "vmlinuz").write_bytes(Path("/usr/lib/ipxe/ipxe.lkrn").read_bytes())
    (tree / "initrd").write_bytes(b"\0" * 4096)
    disk = qcow2(images / "web01.qcow2")
    location = f"{tree},kernel=vmlinuz,initrd=initrd"
    options = ("--location", location, "--disk", str(disk), "--network", "none")
    done = install("--name", "web01", *options)
    assert done.returncode == 0, done.stderr
    assert "<kernel>" in warden.libvirt.xml("web01")
    assert is_guarded(warden, "web01")
    warden.libvirt.destroy("web01")
    uuid = warden.status("web01")["uuid"]
    assert journal.records(PATHS, uuid) == []
    assert list((PATHS.state / "shared").iterdir()) == []
    warden.libvirt.start("web01")
    assert "<kernel>" not in warden.libvirt.xml("web01")
    assert is_guarded(warden, "web01")


def test_a_domain_that_the_policy_does_not_manage_is_made_as_ever(
    warden: Warden, service: Service, images: Path
) -> None:
    set_policy('managed = ["*", "!theirs"]\n')
    disk = qcow2(images / "theirs.qcow2")
    done = install("--name", "theirs", "--disk", str(disk), "--import", "--network", "none")
    assert done.returncode == 0, done.stderr
    assert not warden.status("theirs")["user"]
    assert "warden:" not in warden.libvirt.xml("theirs", "--inactive")

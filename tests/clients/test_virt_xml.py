# SPDX-License-Identifier: GPL-2.0-or-later
"""virt-clone and virt-xml: copies of a VM, and edits of one that is off or runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.cells import in_its_cell
from tests.host.command import CommandFailedError, run
from tests.host.domain import Disk, domain_xml
from tests.host.images import qcow2
from tests.host.service import Service
from tests.host.syslog import Syslog
from tests.libvirt.warden import ENFORCING, Warden, set_policy

_HOTPLUG = "<controller type='virtio-serial'/>"


def defined(warden: Warden, syslog: Syslog, images: Path) -> None:
    """A VM web01, enrolled and off."""
    disk = Disk(qcow2(images / "web01.qcow2"))
    warden.libvirt.define(domain_xml("web01", disks=[disk], emulator=None, extra_devices=_HOTPLUG))
    syslog.wait_for("event=enrolled domain=web01", timeout=20)


def created(warden: Warden, images: Path) -> None:
    """A VM web01 that was started before anybody enrolled it, and stays so."""
    disk = Disk(qcow2(images / "web01.qcow2"))
    warden.libvirt.virsh(
        "create", "/dev/stdin", stdin=domain_xml("web01", disks=[disk], emulator=None)
    )
    assert in_its_cell(warden, "web01")["adopted"]


def allow_more_disks(images: Path) -> None:
    """Let QEMU open here what is attached later: without sVirt, Landlock confines it."""
    set_policy(f'{ENFORCING}[landlock]\ndirectories = ["{images}"]\n')


def virt_xml(*options: str) -> None:
    run("virt-xml", "web01", *options)


def test_a_clone_runs_as_another_user_with_a_disk_of_its_own(
    warden: Warden, service: Service, syslog: Syslog, images: Path
) -> None:
    defined(warden, syslog, images)
    warden.libvirt.start("web01")
    warden.libvirt.destroy("web01")
    copy = images / "web02.qcow2"
    run("virt-clone", "--original", "web01", "--name", "web02", "--file", str(copy))
    syslog.wait_for("event=enrolled domain=web02", timeout=20)
    warden.libvirt.start("web02")
    warden.libvirt.start("web01")
    assert in_its_cell(warden, "web01")["uid"] != in_its_cell(warden, "web02")["uid"]
    assert copy.stat().st_uid == warden.status("web02")["uid"]


def test_a_clone_that_names_its_disk_by_itself(
    warden: Warden, service: Service, syslog: Syslog, images: Path
) -> None:
    defined(warden, syslog, images)
    run("virt-clone", "--original", "web01", "--auto-clone", "--name", "web02")
    syslog.wait_for("event=enrolled domain=web02", timeout=20)
    warden.libvirt.start("web02")
    in_its_cell(warden, "web02")


def test_a_clone_that_starts_before_it_is_enrolled_is_refused_with_the_command_that_lets_it(
    warden: Warden, images: Path
) -> None:
    """Its XML is a copy, and names the user of its original: libvirt would run it as that."""
    original = qcow2(images / "web01.qcow2")
    warden.started("web01", disks=[Disk(original)])
    warden.libvirt.destroy("web01")
    run("virt-clone", "--original", "web01", "--auto-clone", "--name", "web02")
    refusal = warden.refusal("web02")
    assert "user vmw-web01 is not this domain's own; fix: virt-warden enrol web02" in refusal
    warden.command("enrol", "web02")
    warden.libvirt.start("web02")
    in_its_cell(warden, "web02")


def test_an_edit_and_a_new_device_hold_at_the_next_start(
    warden: Warden, service: Service, syslog: Syslog, images: Path
) -> None:
    defined(warden, syslog, images)
    second = qcow2(images / "second.qcow2")
    virt_xml("--edit", "--memory", "96")
    virt_xml("--add-device", "--disk", f"path={second},target.bus=virtio")
    warden.libvirt.start("web01")
    standing = in_its_cell(warden, "web01")
    assert second.stat().st_uid == standing["uid"]
    assert "98304" in warden.libvirt.xml("web01")


def test_a_running_vm_gets_a_disk(
    warden: Warden, service: Service, syslog: Syslog, images: Path
) -> None:
    allow_more_disks(images)
    defined(warden, syslog, images)
    warden.libvirt.start("web01")
    second = qcow2(images / "second.qcow2")
    virt_xml("--add-device", "--update", "--disk", f"path={second},target.bus=virtio")
    assert str(second) in warden.libvirt.xml("web01")
    assert second.stat().st_uid == in_its_cell(warden, "web01")["uid"]
    warden.libvirt.destroy("web01")
    warden.libvirt.start("web01")
    in_its_cell(warden, "web01")


def test_an_adopted_vm_gets_a_disk_only_from_its_next_start_on_as_status_and_its_log_say(
    warden: Warden, service: Service, images: Path
) -> None:
    allow_more_disks(images)
    created(warden, images)
    second = qcow2(images / "second.qcow2")
    with pytest.raises(CommandFailedError, match="Permission denied"):
        virt_xml("--add-device", "--update", "--disk", f"path={second},target.bus=virtio")
    assert second.stat().st_uid == 0
    said = warden.command("status", "web01", check=False).stdout
    assert "Until its next start, disks cannot be attached" in said
    assert "works from its next start on" in warden.libvirt.log("web01")

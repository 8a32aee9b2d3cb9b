# SPDX-License-Identifier: GPL-2.0-or-later
"""virtnbdbackup: libvirt's pull backup of a VM that runs, over a socket of its QEMU."""

from __future__ import annotations

from pathlib import Path

from tests.clients.cells import in_its_cell
from tests.host.command import run
from tests.host.domain import Disk, domain_xml
from tests.host.images import qcow2
from tests.host.service import Service
from tests.host.syslog import Syslog
from tests.libvirt.warden import ENFORCING, Warden, set_policy

_SECONDS = 180
# Where virtnbdbackup has QEMU make its socket, and libvirt its scratch files (--socketfile,
# --scratchdir).
_PLACE = "/var/tmp"
_FIRST, _SECOND = "full, first", "in the increment"


def write(disk: Path, text: str, at: str) -> None:
    """Write to a disk whose VM is off."""
    run("qemu-io", "-f", "qcow2", "-c", f"write -P {sum(map(ord, text)) % 255} {at} 64k", str(disk))


def backup(level: str, directory: Path) -> None:
    options = ("-U", "qemu:///system", "-d", "web01", "-l", level, "-o", str(directory))
    run("virtnbdbackup", *options, seconds=_SECONDS)


def test_a_running_vm_is_backed_up_and_comes_back_from_the_backup(
    warden: Warden, service: Service, syslog: Syslog, images: Path
) -> None:
    # Without sVirt, Landlock confines QEMU to what it names at the start.
    set_policy(f'{ENFORCING}[landlock]\ndirectories = ["{_PLACE}"]\n')
    disk = qcow2(images / "web01.qcow2")
    write(disk, _FIRST, "0")
    warden.libvirt.define(domain_xml("web01", disks=[Disk(disk)], emulator=None))
    syslog.wait_for("event=enrolled domain=web01", timeout=20)
    warden.libvirt.start("web01")
    there = images / "backup"
    backup("full", there)
    in_its_cell(warden, "web01")
    warden.libvirt.destroy("web01")
    write(disk, _SECOND, "1M")
    warden.libvirt.start("web01")
    backup("inc", there)
    in_its_cell(warden, "web01")
    restored = images / "restored"
    restored.mkdir()
    run("virtnbdrestore", "-i", str(there), "-o", str(restored), seconds=_SECONDS)
    (image,) = [path for path in restored.iterdir() if path.name == disk.name]
    warden.libvirt.destroy("web01")
    run("qemu-img", "compare", str(disk), str(image))

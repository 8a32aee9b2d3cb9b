# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that define a domain and start it at once, or only create it."""

from __future__ import annotations

from pathlib import Path

import libvirt
import pytest

from tests.clients.cells import in_its_cell
from tests.host.domain import Disk, domain_xml
from tests.host.images import qcow2
from tests.host.service import Service
from tests.libvirt.warden import Warden

TIMES = 100


def xml(name: str, *disks: Disk) -> str:
    """A domain whose emulator libvirt chooses."""
    return domain_xml(name, disks=disks, emulator=None)


@pytest.mark.parametrize("undefined_between", [True, False], ids=["new-each-time", "defined-again"])
def test_each_of_a_hundred_starts_right_after_the_definition_is_in_its_cell(
    warden: Warden, service: Service, images: Path, undefined_between: bool
) -> None:
    """One program on one connection: nothing else comes between the two calls."""
    disk = Disk(qcow2(images / "web01.qcow2"))
    connection = libvirt.open("qemu:///system")
    try:
        for _ in range(TIMES):
            domain = connection.defineXML(xml("web01", disk))
            domain.create()
            in_its_cell(warden, "web01")
            domain.destroy()
            if undefined_between:
                domain.undefine()
    finally:
        connection.close()


def test_virsh_create_runs_a_domain_in_its_cell(
    warden: Warden, service: Service, images: Path
) -> None:
    disk = Disk(qcow2(images / "web01.qcow2"))
    warden.libvirt.virsh("create", "/dev/stdin", stdin=xml("web01", disk))
    assert in_its_cell(warden, "web01")["adopted"]

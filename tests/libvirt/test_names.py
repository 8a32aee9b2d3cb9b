# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains' names that are no plain words: each starts, keeps its promises, and stops."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.host.command import run
from tests.host.domain import Disk, Vnc, domain_xml
from tests.host.images import qcow2
from tests.libvirt.warden import PATHS, Warden


@pytest.mark.parametrize(
    "name",
    [
        "R&D",
        "a <b> 'c' \"d\"",
        "Grüße 东京",
        "-web",
        "web 01",
        "%s$HOME`id`;",
        "x" * 100,
    ],
)
def test_a_vm_of_any_name_is_guarded_and_leaves_nothing(
    warden: Warden, images: Path, name: str
) -> None:
    disk = Disk(qcow2(images / "disk.qcow2"))
    warden.libvirt.define(domain_xml(name, disks=[disk], vnc=Vnc()))
    run("virt-warden", "enrol", "--", name)
    warden.libvirt.virsh("start", "--domain", name)
    (standing,) = json.loads(run("virt-warden", "status", "--json").stdout)
    assert standing["name"] == name
    assert standing["breaches"] == []
    assert standing["pid"] is not None
    warden.libvirt.virsh("destroy", "--domain", name)
    assert not list(PATHS.state.glob("domains/*/run.journal"))
    warden.libvirt.virsh("undefine", "--domain", name)

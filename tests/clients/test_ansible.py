# SPDX-License-Identifier: GPL-2.0-or-later
"""Ansible's community.libvirt."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from tests.clients.cells import in_its_cell
from tests.host.command import run
from tests.host.domain import Disk, domain_xml
from tests.host.images import qcow2
from tests.host.service import Service
from tests.libvirt.warden import Warden

_SECONDS = 300


def play(directory: Path, *tasks: dict[str, object]) -> None:
    """Run a play of these tasks on this host."""
    book = directory / "play.yml"
    tasks_here = [{"name": f"task {number}", **task} for number, task in enumerate(tasks)]
    plays = [{"hosts": "localhost", "gather_facts": False, "tasks": tasks_here}]
    book.write_text(yaml.safe_dump(plays))
    environment = {
        **os.environ,
        "HOME": str(directory),
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
    }
    options = ("-i", "localhost,", "-c", "local")
    run("ansible-playbook", *options, str(book), seconds=_SECONDS, environment=environment)


def test_a_vm_that_a_play_defines_and_starts_is_in_its_cell(
    warden: Warden, service: Service, images: Path
) -> None:
    disk = Disk(qcow2(images / "web01.qcow2"))
    xml = domain_xml("web01", disks=[disk], emulator=None)
    play(
        images,
        {"community.libvirt.virt": {"command": "define", "xml": xml}},
        {"community.libvirt.virt": {"name": "web01", "state": "running", "autostart": True}},
    )
    in_its_cell(warden, "web01")
    assert "enable" in warden.libvirt.virsh("dominfo", "web01").stdout.split("Autostart:")[1]
    play(
        images,
        {"community.libvirt.virt": {"name": "web01", "state": "destroyed"}},
        {"community.libvirt.virt": {"name": "web01", "command": "start"}},
    )
    in_its_cell(warden, "web01")
    play(
        images,
        {"community.libvirt.virt": {"name": "web01", "state": "destroyed"}},
        {"community.libvirt.virt": {"name": "web01", "command": "undefine"}},
    )
    assert "web01" not in warden.libvirt.virsh("list", "--all", "--name").stdout

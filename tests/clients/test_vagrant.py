# SPDX-License-Identifier: GPL-2.0-or-later
"""Vagrant with vagrant-libvirt: a box becomes a base volume, an overlay, a domain that starts."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import libvirt

from tests.clients.cells import in_its_cell
from tests.host.command import run
from tests.host.events import lifecycle_events
from tests.host.images import qcow2
from tests.host.service import Service
from tests.libvirt.warden import Warden

_SECONDS = 180
# A guest without an operating system gets no address: vagrant would wait for it, and then destroy
# the domain.
_VAGRANTFILE = """\
Vagrant.configure("2") do |config|
  config.vm.box = "tiny"
  config.vm.box_check_update = false
  config.vm.synced_folder ".", "/vagrant", disabled: true
  config.vm.define "web01"
  config.vm.network :public_network,
    dev: "BRIDGE", mode: "bridge", type: "bridge", auto_config: false
  config.vm.provider :libvirt do |libvirt|
    libvirt.driver = "qemu"
    libvirt.memory = 64
    libvirt.default_prefix = ""
    libvirt.mgmt_attach = false
  end
end
"""
_BOX = {"provider": "libvirt", "format": "qcow2", "virtual_size": 1}


def environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "VAGRANT_HOME": str(home / ".vagrant.d"),
        "VAGRANT_DEFAULT_PROVIDER": "libvirt",
        "VAGRANT_CHECKPOINT_DISABLE": "1",
    }


def vagrant(project: Path, *arguments: str, check: bool = True) -> str:
    """Run vagrant in the directory of a Vagrantfile; what it says."""
    command = ("env", f"--chdir={project}", "vagrant", *arguments)
    done = run(*command, check=check, seconds=_SECONDS, environment=environment(project))
    assert check or done.returncode != 0
    return done.stdout + done.stderr


@contextmanager
def up(project: Path, log: Path) -> Iterator[None]:
    """`vagrant up`, which is killed at the end, so that it does not clean up."""
    with log.open("w") as said:
        going = subprocess.Popen(
            ["vagrant", "up"],
            cwd=project,
            env=environment(project),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
        try:
            yield
        finally:
            going.kill()
            going.wait()


def project_of(directory: Path, bridge: str) -> Path:
    """A directory with a Vagrantfile, whose box vagrant knows."""
    project = directory / "project"
    project.mkdir()
    (project / "Vagrantfile").write_text(_VAGRANTFILE.replace("BRIDGE", bridge))
    image, metadata = qcow2(directory / "box.img", size="1G"), directory / "metadata.json"
    metadata.write_text(json.dumps(_BOX))
    box = directory / "tiny.box"
    with tarfile.open(box, "w:gz") as tar:
        for file in (image, metadata):
            tar.add(file, file.name)
    vagrant(project, "box", "add", "--name", "tiny", str(box))
    return project


def test_a_box_comes_up_in_its_cell_once_it_was_uploaded_and_again_after_a_halt(
    warden: Warden, service: Service, images: Path, bridge: str
) -> None:
    project = project_of(images, bridge)
    # vagrant-libvirt never ends the stream of its upload: libvirt has the base open to write.
    first = vagrant(project, "up", check=False)
    assert "libvirt itself has" in first, first
    assert "systemctl restart libvirtd" in first
    log = images / "up.log"
    for _ in ("made", "halted"):
        with lifecycle_events() as events, up(project, log):
            try:
                events.wait_for("web01", libvirt.VIR_DOMAIN_EVENT_STARTED)
            except Exception as error:
                raise AssertionError(log.read_text()) from error
            standing = in_its_cell(warden, "web01")
        overlay = Path("/var/lib/libvirt/images/web01.img")
        assert overlay.stat().st_uid == standing["uid"]
        warden.libvirt.destroy("web01")

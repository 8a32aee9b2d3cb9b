# SPDX-License-Identifier: GPL-2.0-or-later
"""Terraform's order, as its provider dmacvicar/libvirt makes a VM.

Terraform is in no registry of Debian's, PyPI's or npm's. These calls of libvirt are the provider's
(0.8.3: libvirt/domain.go, libvirt/domain_def.go; 0.9: internal/provider): a base and an overlay as
volumes of a pool, a domain that names the overlay by pool and volume, with SPICE and the agent's
channel, defined and started at once, and undefined where the start fails.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import libvirt

from tests.clients.cells import in_its_cell
from tests.host.service import Service
from tests.libvirt.warden import Warden

TIMES = 100
_POOL = "<pool type='dir'><name>tf</name><target><path>{}</path></target></pool>"
_BASE = (
    "<volume><name>base.qcow2</name><capacity>16777216</capacity>"
    "<target><format type='qcow2'/></target></volume>"
)
_OVERLAY = (
    "<volume><name>{name}.qcow2</name><capacity>16777216</capacity>"
    "<target><format type='qcow2'/></target>"
    "<backingStore><path>{base}</path><format type='qcow2'/></backingStore></volume>"
)
_DOMAIN = """\
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>64</memory>
  <vcpu placement='static'>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/><apic/><pae/></features>
  <cpu/>
  <devices>
    <disk type='volume' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source pool='tf' volume='{name}.qcow2'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <graphics type='spice' autoport='yes'/>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
  </devices>
</domain>
"""


@contextmanager
def pool(directory: Path) -> Iterator[libvirt.virStoragePool]:
    """A running storage pool in a directory, with a base image, on a connection of its own."""
    connection = libvirt.open("qemu:///system")
    made = connection.storagePoolDefineXML(_POOL.format(directory))
    made.create()
    made.createXML(_BASE)
    try:
        yield made
    finally:
        made.destroy()
        made.undefine()
        connection.close()


def apply(running: libvirt.virStoragePool, name: str) -> None:
    """Make a VM of this name and start it."""
    connection = running.connect()
    base = running.storageVolLookupByName("base.qcow2").path()
    running.createXML(_OVERLAY.format(name=name, base=base))
    domain = connection.defineXML(_DOMAIN.format(name=name))
    try:
        domain.create()
    except libvirt.libvirtError:
        domain.undefine()
        raise


def destroy(running: libvirt.virStoragePool, name: str) -> None:
    """End and forget the VM, and delete its volume."""
    domain = running.connect().lookupByName(name)
    domain.destroy()
    domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
    running.refresh()
    running.storageVolLookupByName(f"{name}.qcow2").delete()


def test_each_of_a_hundred_vms_starts_in_its_cell(
    warden: Warden, service: Service, images: Path
) -> None:
    with pool(images) as running:
        for number in range(TIMES):
            name = f"tf{number}"
            apply(running, name)
            standing = in_its_cell(warden, name)
            assert (images / f"{name}.qcow2").stat().st_uid == standing["uid"]
            assert (images / "base.qcow2").stat().st_uid == 0
            destroy(running, name)


def test_the_vm_starts_again_once_it_is_enrolled_and_keeps_its_volume_in_the_xml(
    warden: Warden, service: Service, images: Path
) -> None:
    """Terraform compares what it reads there with what it wrote."""
    with pool(images) as running:
        apply(running, "tf")
        uid = in_its_cell(warden, "tf")["uid"]
        warden.libvirt.destroy("tf")
        warden.libvirt.start("tf")
        standing = in_its_cell(warden, "tf")
        assert (standing["uid"], standing["adopted"]) == (uid, False)
        assert "<source pool='tf' volume='tf.qcow2'" in warden.libvirt.xml("tf", "--inactive")
        disk = images / "tf.qcow2"
        assert (disk.stat().st_uid, stat.S_IMODE(disk.stat().st_mode)) == (uid, 0o600)
        destroy(running, "tf")

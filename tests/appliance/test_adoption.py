# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts that nobody enrolled, on a host with AppArmor, cgroups and a /dev for each QEMU."""

from __future__ import annotations

from typing import Any

from tests.appliance.machine import Host
from tests.appliance.test_cells import IMAGES, status
from tests.appliance.watched import Boot
from tests.host.domain import Disk, Vnc, domain_xml

_TPM = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
_CHANNEL = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"


def created(host: Host, name: str, *disks: Disk, **parts: Any) -> str:
    """Create a domain whose emulator libvirt chooses; the pid of its QEMU."""
    host.put(f"/root/{name}.xml", domain_xml(name, disks=disks, emulator=None, **parts))
    host.run(f"virsh -q create /root/{name}.xml")
    return host.run(f"cat /run/libvirt/qemu/{name}.pid").stdout.strip()


def image(host: Host, name: str) -> Disk:
    host.run(f"qemu-img create -q -f qcow2 {IMAGES}/{name}.qcow2 16M")
    return Disk(f"{IMAGES}/{name}.qcow2")


def test_the_emulator_that_libvirt_names_to_others_is_the_wrapper(guarded: Host) -> None:
    said = guarded.run("virsh -q domcapabilities | grep '<path>'").stdout
    assert "/usr/lib/virt-warden/" in said


def test_an_adopted_vm_has_its_own_user_and_its_own_label_and_keeps_every_promise(
    guarded: Host,
) -> None:
    parts: dict[str, Any] = {"vnc": Vnc(), "extra_devices": _TPM + _CHANNEL}
    pid = created(guarded, "web01", image(guarded, "web01"), **parts)
    assert guarded.run(f"stat -c %U /proc/{pid}").stdout == "vmw-web01\n"
    uuid = guarded.run("virsh -q domuuid web01").stdout.strip()
    label = guarded.run(f"cat /proc/{pid}/attr/current").stdout.strip("\0\n")
    assert label == f"libvirt-{uuid} (enforce)"
    found = status(guarded, "web01")
    assert (found["adopted"], found["breaches"]) == (True, [])
    tpm = guarded.run("cat /run/libvirt/qemu/swtpm/*-web01-swtpm.pid").stdout.strip()
    assert "type=unixio,fd=" in guarded.run(f"tr '\\0' ' ' </proc/{tpm}/cmdline").stdout
    assert guarded.run(f"cat /proc/{tpm}/attr/current").stdout.strip("\0\n") == label
    sets = guarded.run(f"grep ^Cap /proc/{pid}/status").stdout.split()
    assert {*sets[1::2]} == {"0" * 16}, "the bounding set is empty too"
    denied = guarded.run("journalctl -k | grep apparmor=.DENIED | grep -v ptrace", check=False)
    assert "virt-warden" not in denied.stdout
    guarded.run("virsh -q destroy web01")
    assert guarded.run(f"stat -c %U {IMAGES}/web01.qcow2").stdout == "root\n"


def test_an_adopted_vm_may_have_a_block_device_whose_node_is_its_own(boot: Boot) -> None:
    host = boot("guarded", disks=["64M"])
    before = host.run("stat -c %U:%a /dev/vda").stdout
    device = Disk("/dev/vda", kind="block", format="raw")
    pid = created(host, "db01", device)
    assert host.run(f"stat -c %U /proc/{pid}").stdout == "vmw-db01\n"
    assert status(host, "db01")["breaches"] == []
    host.run("virsh -q destroy db01")
    assert host.run("stat -c %U:%a /dev/vda").stdout == before


def test_the_socket_starts_a_service_that_was_stopped(guarded: Host) -> None:
    guarded.run("systemctl stop virt-warden.service")
    pid = created(guarded, "rests", image(guarded, "rests"))
    assert guarded.run(f"stat -c %U /proc/{pid}").stdout == "vmw-rests\n"
    assert guarded.run("systemctl is-active virt-warden").stdout == "active\n"

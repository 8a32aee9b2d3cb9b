# SPDX-License-Identifier: GPL-2.0-or-later
"""Installed on a host of ordinary VMs that start with it: after the next boot all of them run."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from tests.appliance import layers
from tests.appliance.machine import Host
from tests.appliance.vm import IMAGES, Vm
from tests.appliance.watched import Boot
from tests.host.domain import Disk, Nic, Vnc, domain_xml

FOUND = "/etc/virt-warden/policy.d/00-found-at-installation.toml"
BRIDGE = "br-found"
# What virt-install makes by default, beside the disk and the NIC.
SPICE = (
    "<channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>"
    "<graphics type='spice' autoport='yes'><listen type='address'/></graphics>"
)
USER_NET = "<interface type='user'><mac address='52:54:00:00:0f:07'/></interface>"
NINEP = (
    "<filesystem type='mount' accessmode='mapped'>"
    "<source dir='/srv/shared'/><target dir='share'/></filesystem>"
)
_BRIDGE_UNIT = f"""
[Unit]
Before=libvirtd.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/ip link add {BRIDGE} type bridge forward_delay 0
ExecStart=/usr/sbin/ip link set {BRIDGE} up
[Install]
WantedBy=multi-user.target
"""
TABLET = (
    "<hostdev mode='subsystem' type='usb'><source startupPolicy='optional'>"
    "<vendor id='0x0627'/><product id='0x0001'/></source></hostdev>"
)
# By name: whether enforcing mode has nothing against it.
CLEAN = {"plain": True, "lv": True, "folder": False, "install": False, "everywhere": False}


def _prepare(host: Host) -> None:
    host.put("/etc/systemd/system/bridge.service", _BRIDGE_UNIT)
    host.run("systemctl daemon-reload && systemctl enable --now bridge")
    host.run(
        "install -d -m 700 -o libvirt-qemu -g libvirt-qemu /srv/shared"
        " && install -d -m 755 -o www-data -g www-data /srv/www"
        " && truncate -s 1M /srv/www/debian.iso"
    )
    images = " ".join(f"{IMAGES}/{name}.qcow2" for name in (*CLEAN, "spice"))
    host.run(f"for image in {images}; do qemu-img create -q -f qcow2 $image 16M; done")
    host.run("vgcreate -q vms /dev/vda && lvcreate -q -y -L 64M -n lv vms")


def _define_all(host: Host) -> None:
    """What an ordinary host has, each with what else the name does not tell."""

    def define(name: str, *, usb: bool = False, **parts: Any) -> None:
        disks = parts.pop("disks", [Disk(f"{IMAGES}/{name}.qcow2")])
        xml = domain_xml(name, disks=disks, memory_mib=32, **parts)
        host.define(xml.replace('<controller type="usb" model="none"/>', "") if usb else xml)

    iso = Disk("/srv/www/debian.iso", "hda", "raw", readonly=True, device="cdrom")
    with_iso = [Disk(f"{IMAGES}/install.qcow2"), iso]
    define("plain", nics=[Nic("52:54:00:00:0f:01", BRIDGE)], vnc=Vnc())
    define("lv", disks=[Disk("/dev/vms/lv", kind="block", format="raw")])
    folder = [Nic("52:54:00:00:0f:02", BRIDGE)]
    define("folder", nics=folder, extra_devices=NINEP + USER_NET)
    define("install", disks=with_iso, usb=True, extra_devices=TABLET)
    define("everywhere", vnc=Vnc(listen="0.0.0.0"))  # noqa: S104
    if host.run("virsh domcapabilities | grep -q '<value>spice'", check=False).exit == 0:
        define("spice", extra_devices=SPICE)


def test_a_host_full_of_ordinary_vms_comes_up_after_its_first_reboot_with_us(
    boot: Boot, package: Path
) -> None:
    host = boot("plain", disks=["1G"], memory_mib=2048)
    _prepare(host)
    _define_all(host)
    names = host.run("virsh list --all --name").stdout.split()
    for name in names:
        Vm(host, name).virsh("autostart")
    before = Vm(host, "folder").start()
    assert before.user() == "libvirt-qemu"

    layers.install(host, package)
    listed = {entry["match"] for entry in tomllib.loads(host.get(FOUND).decode())["domain"]}
    assert listed - {"spice"} == {name for name, is_clean in CLEAN.items() if not is_clean}
    before.virsh("destroy")  # libvirt-guests would wait for a system that shuts down
    host.reboot()
    _await_all(host, names)
    for name, is_clean in CLEAN.items():
        vm = Vm(host, name)
        if is_clean:
            assert vm.user() == f"vmw-{name}"
            assert vm.status()["breaches"] == []
    # To these a user of their own would have no way.
    for name in ("folder", "install"):
        assert Vm(host, name).user() == "libvirt-qemu", name
    assert "event=refused" not in host.run("journalctl -b -t virt-warden").stdout

    done = host.run("virt-warden graduate --all", check=False)
    assert done.exit == 1
    assert "folder stays permissive" in done.stdout
    host.run("virsh destroy everywhere")
    host.define(domain_xml("everywhere", disks=[Disk(f"{IMAGES}/everywhere.qcow2")], vnc=Vnc()))
    assert host.run("virt-warden graduate everywhere").stdout == "everywhere is enforcing\n"
    vm = Vm(host, "everywhere").start()
    assert vm.user() == "vmw-everywhere"
    standing = vm.status()
    assert (standing["mode"], standing["breaches"]) == ("enforcing", [])


def _await_all(host: Host, names: list[str]) -> None:
    """All of them run, some time after the boot."""
    asked = "virsh list --name | sort | xargs"
    wanted = " ".join(sorted(names))
    done = host.run(
        f"for _ in $(seq 300); do [ \"$({asked})\" = '{wanted}' ] && break; sleep 1; done; {asked}",
        seconds=400,
    )
    assert done.stdout.split() == sorted(names), host.journal(40)

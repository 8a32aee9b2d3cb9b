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
# Their guests have no system that would shut down.
_GUESTS_AT_SHUTDOWN = "ON_BOOT=ignore\nON_SHUTDOWN=shutdown\nSHUTDOWN_TIMEOUT=1\n"
# By name: whether enforcing mode has nothing against it.
CLEAN = {"plain": True, "lv": True, "folder": False, "everywhere": False}


def _prepare(host: Host) -> None:
    host.put("/etc/systemd/system/bridge.service", _BRIDGE_UNIT)
    host.put("/etc/default/libvirt-guests", _GUESTS_AT_SHUTDOWN)
    host.run("systemctl daemon-reload && systemctl enable --now bridge")
    host.run("install -d -m 700 -o libvirt-qemu -g libvirt-qemu /srv/shared")
    images = " ".join(f"{IMAGES}/{name}.qcow2" for name in CLEAN)
    host.run(f"for image in {images}; do qemu-img create -q -f qcow2 $image 16M; done")
    host.run("vgcreate -q vms /dev/vda && lvcreate -q -y -L 64M -n lv vms")


def _define_all(host: Host) -> None:
    """What an ordinary host has, each with what else the name does not tell."""

    def define(name: str, **parts: Any) -> None:
        disks = parts.pop("disks", [Disk(f"{IMAGES}/{name}.qcow2")])
        host.define(domain_xml(name, disks=disks, memory_mib=16, **parts))
        Vm(host, name).virsh("autostart")

    define("plain", nics=[Nic("52:54:00:00:0f:01", BRIDGE)], vnc=Vnc())
    define("lv", disks=[Disk("/dev/vms/lv", kind="block", format="raw")])
    folder = [Nic("52:54:00:00:0f:02", BRIDGE)]
    define("folder", nics=folder, extra_devices=NINEP + USER_NET)
    define("everywhere", vnc=Vnc(listen="0.0.0.0"))  # noqa: S104


def test_a_host_full_of_ordinary_vms_comes_up_after_its_first_reboot_with_us(
    boot: Boot, package: Path
) -> None:
    host = boot("plain", disks=["1G"], memory_mib=2048)
    _prepare(host)
    _define_all(host)
    assert Vm(host, "folder").start().user() == "libvirt-qemu"

    layers.install(host, package)
    listed = {entry["match"] for entry in tomllib.loads(host.get(FOUND).decode())["domain"]}
    assert listed == {name for name, is_clean in CLEAN.items() if not is_clean}
    host.reboot()
    _await_all(host)
    for name, is_clean in CLEAN.items():
        vm = Vm(host, name)
        if is_clean:
            assert vm.user() == f"vmw-{name}"
            assert vm.status()["breaches"] == []
    # To this one a user of its own would have no way.
    assert Vm(host, "folder").user() == "libvirt-qemu"
    assert "event=refused" not in host.run("journalctl -b -t virt-warden").stdout

    done = host.run("virt-warden graduate --all", check=False)
    assert done.exit == 1
    assert "folder stays permissive" in done.stdout
    host.run("virsh destroy everywhere")
    host.define(domain_xml("everywhere", disks=[Disk(f"{IMAGES}/everywhere.qcow2")], vnc=Vnc()))
    assert host.run("virt-warden graduate everywhere").stdout == "everywhere is enforcing\n"
    vm = Vm(host, "everywhere")
    vm.await_enrolment()
    vm.start()
    assert vm.user() == "vmw-everywhere"
    standing = vm.status()
    assert (standing["mode"], standing["breaches"]) == ("enforcing", [])


def _await_all(host: Host) -> None:
    """All of them run, some time after the boot."""
    wanted = " ".join(sorted(CLEAN))
    host.until(f"[ \"$(virsh list --name | sort | xargs)\" = '{wanted}' ]", seconds=900)

# SPDX-License-Identifier: GPL-2.0-or-later
"""A running VM moves from one guarded host to another, with its disk."""

from __future__ import annotations

from collections.abc import Callable

from tests.appliance.hardware import Cable
from tests.appliance.machine import Host
from tests.appliance.vm import Vm, defined
from tests.appliance.watched import Boot

_ADDRESSES = {"here": "192.0.2.1", "there": "192.0.2.2"}


def test_a_vm_moves_to_another_host_and_is_guarded_there(
    boot: Boot, cable: Callable[[], Cable]
) -> None:
    lan = cable()
    here, there = (boot("guarded", cables=[lan]) for _ in range(2))
    _connect(here, "here")
    _connect(there, "there")
    _listen(there)
    # The disk's copy is QEMU's own connection; that of the memory is libvirt's.
    reach = f'[reach]\nhosts = ["{_ADDRESSES["there"]}:49152-49215"]\n'
    here.put("/etc/virt-warden/policy.d/migration.toml", reach)
    leaving = defined(here, "web01").start()
    there.run(f"qemu-img create -q -f qcow2 {leaving.disk} 64M")

    address = _ADDRESSES["there"]
    how = ("--live", "--persistent", "--undefinesource", "--copy-storage-all")
    leaving.virsh("migrate", *how, f"qemu+tcp://{address}/system", f"tcp://{address}")

    arrived = Vm(there, "web01")
    assert arrived.is_well()
    # It answered there while it arrived, and the service has seen that it is here.
    there.until("nft list table inet vmw-reach | grep -q reject && ! nft list ruleset | grep 49152")
    assert here.run("virsh -q list --all").stdout.strip() == ""
    assert leaving.owner() == "root"
    arrived.virsh("destroy")
    arrived.await_enrolment()
    assert arrived.start().is_well()


def _connect(host: Host, name: str) -> None:
    host.run(f"hostnamectl hostname {name}")
    for other, address in _ADDRESSES.items():
        host.run(f"echo '{address} {other}' >>/etc/hosts")
    host.run(f"ip addr add {_ADDRESSES[name]}/24 dev eth0 && ip link set eth0 up")


def _listen(host: Host) -> None:
    host.run("echo 'auth_tcp = \"none\"' >>/etc/libvirt/libvirtd.conf")
    host.run("systemctl stop libvirtd.service && systemctl start libvirtd-tcp.socket")
    host.run("systemctl start libvirtd.service && virsh version")

# SPDX-License-Identifier: GPL-2.0-or-later
"""What admins do with VMs works with virt-warden as it does without, and AppArmor sees no harm."""

from __future__ import annotations

import pytest

from tests.appliance.boot_sector import COUNTER, counting_boot_sector
from tests.appliance.machine import Host
from tests.appliance.vm import IMAGES, Vm, defined
from tests.host.domain import Disk, Nic, domain_xml

BRIDGE = "br0"
MAC = "52:54:00:00:00:01"
_FIRMWARE = """<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
<nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'/>"""


@pytest.fixture(scope="module")
def vm(either: Host) -> Vm:
    """A running VM, which each test leaves running."""
    either.run(f"ip link add {BRIDGE} type bridge && ip link set {BRIDGE} up")
    return defined(either, "web01").start()


def test_a_vm_starts_confined_by_apparmor(vm: Vm) -> None:
    assert vm.is_well()


def test_a_saved_vm_is_restored(vm: Vm) -> None:
    vm.virsh("save", "/root/web01.save")
    assert vm.virsh("domstate") == "shut off"
    vm.host.run("virsh -q restore /root/web01.save")
    assert vm.is_well()


def test_a_vm_that_libvirt_saved_goes_on_at_the_next_start(vm: Vm) -> None:
    vm.virsh("managedsave")
    assert vm.virsh("domstate") == "shut off"
    vm.start()
    assert vm.is_well()


def test_a_snapshots_overlay_is_committed_into_its_base(vm: Vm) -> None:
    overlay = f"{IMAGES}/overlay.qcow2"
    vm.virsh(
        "snapshot-create-as",
        "s1",
        "--disk-only",
        "--no-metadata",
        "--diskspec",
        f"vda,file={overlay}",
    )
    assert overlay in vm.virsh("domblklist")
    assert vm.is_well()
    vm.virsh("blockcommit", "vda", "--active", "--pivot", "--wait")
    assert overlay not in vm.virsh("domblklist")
    assert vm.is_well()
    vm.host.run(f"rm {overlay}")


def test_a_disk_is_plugged_into_a_running_vm(vm: Vm) -> None:
    more = f"{IMAGES}/more.qcow2"
    vm.host.run(f"qemu-img create -q -f qcow2 {more} 16M && chmod 600 {more}")
    vm.virsh("attach-disk", more, "vdb", "--subdriver", "qcow2", "--live")
    assert "vdb" in vm.virsh("domblklist")
    assert vm.owner(more) == vm.user()
    assert vm.is_well()


def test_a_nic_is_plugged_into_a_running_vm(vm: Vm) -> None:
    vm.virsh("attach-interface", "bridge", BRIDGE, "--mac", MAC, "--model", "virtio", "--live")
    assert MAC in vm.virsh("domiflist")
    assert vm.label().endswith("(enforce)")
    assert vm.host.denials() == []
    vm.virsh("detach-interface", "bridge", "--mac", MAC, "--live")


def test_a_guest_that_resets_the_machine_boots_again(either: Host) -> None:
    disk = f"{IMAGES}/counter.img"
    # QEMU rounds a raw image down to whole sectors; the BIOS wants more than one.
    either.put(disk, counting_boot_sector(boots=3).ljust(1 << 20, b"\0"), 0o600)
    vm = defined(either, "counter", disks=[Disk(disk, format="raw")]).start()
    pid = vm.pid()
    either.until(f"[ $(od -An -tu1 -j{COUNTER} -N1 {disk}) -eq 3 ]")
    assert vm.pid() == pid
    assert vm.label().endswith("(enforce)")
    vm.virsh("destroy")
    vm.virsh("undefine")


def test_a_vm_is_renamed_and_starts_under_its_new_name(either: Host) -> None:
    vm = defined(either, "former").start()
    user = vm.user()
    vm.virsh("destroy")
    vm.virsh("domrename", "latter")
    renamed = Vm(either, "latter").start()
    assert renamed.user() == user
    renamed.virsh("destroy")
    renamed.virsh("undefine")


def test_a_vms_nvram_goes_with_it(either: Host) -> None:
    nvram = "/var/lib/libvirt/qemu/nvram/uefi_VARS.fd"
    xml = domain_xml("uefi", machine="q35").replace("</os>", f"{_FIRMWARE}</os>")
    vm = defined(either, "uefi", xml=xml).start()
    assert vm.owner(nvram) == vm.user()
    assert vm.label().endswith("(enforce)")
    vm.virsh("destroy")
    vm.virsh("undefine", "--nvram")
    assert either.run(f"test -e {nvram}", check=False).exit == 1


def with_addresses(host: Host, name: str) -> Vm:
    """A VM whose NIC has an IPv6 address: nft 1.1 lists its rules in other words than it takes."""
    host.run("ip link add br-life type bridge forward_delay 0 && ip link set br-life up")
    nic = '[domain.nics.0]\naddresses = ["192.0.2.1", "2001:db8::1"]\n'
    policy = f"/etc/virt-warden/policy.d/{name}.toml"
    host.put(policy, f'[[domain]]\nmatch = "{name}"\n{nic}')
    return defined(host, name, nics=[Nic("52:54:00:00:00:0a", "br-life")])


def test_the_hook_does_its_work_without_the_service_and_a_vm_survives_its_end(
    guarded: Host,
) -> None:
    """libvirtd's profile confines the hook, and nothing that it hands its work on to."""
    vm = with_addresses(guarded, "alone")
    guarded.run("systemctl stop virt-warden")
    vm.start()
    assert vm.is_well()
    assert "verified" in guarded.run("virt-warden log alone --event verified").stdout
    guarded.run("systemctl restart libvirtd && virsh iothreadinfo alone")
    assert vm.is_well()
    work = "/usr/share/virt-warden/virtwarden/hook.py"
    guarded.run(f"mv {work} /root && echo 'import os; os.kill(os.getpid(), 9)' >{work}")
    guarded.run("systemctl restart libvirtd && virsh iothreadinfo alone")
    guarded.run(f"mv /root/hook.py {work}")
    assert vm.is_well()
    said = guarded.run("journalctl -t virt-warden --no-pager").stdout
    failed = "event=failed domain='alone' op=reconnect reason='/etc/libvirt/hooks/qemu: "
    assert f"{failed}ChildProcessError: wait status 9'" in said
    vm.virsh("destroy")
    vm.virsh("undefine")
    guarded.run("systemctl start virt-warden")


def test_the_advice_for_libvirts_sockets_closes_them_and_ends_no_vm(guarded: Host) -> None:
    """As the item remote.crowd says; `systemctl edit` writes such a file."""
    vm = defined(guarded, "web-socket").start()
    units = ("libvirtd.socket", "libvirtd-ro.socket")
    check = "virt-warden remote check"
    assert "[remote.crowd]" in guarded.run(check, check=False).stdout
    for unit in units:
        place = f"/etc/systemd/system/{unit}.d"
        lines = "[Socket]\\nSocketMode=0660\\nSocketGroup=libvirt\\n"
        guarded.run(f"mkdir -p {place} && printf '{lines}' > {place}/override.conf")
    sockets = f"{' '.join(units)} libvirtd-admin.socket"
    stop = f"systemctl stop libvirtd.service {sockets}"
    restart = f"systemctl daemon-reload && {stop} && systemctl start {sockets} libvirtd.service"
    guarded.run(restart)
    assert "[remote.crowd]" not in guarded.run(check, check=False).stdout
    assert vm.is_well()
    guarded.run("runuser -u nobody -- virsh -c qemu:///system list && exit 1 || exit 0")
    vm.virsh("destroy")
    vm.virsh("undefine", "--nvram")
    guarded.run(f"rm -r /etc/systemd/system/libvirtd*.socket.d; {restart}")

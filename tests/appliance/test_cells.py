# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs on a host with our package: their own user and their own AppArmor label at once."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from tests.appliance.machine import Host
from tests.appliance.watched import Boot
from tests.host.domain import Disk, Nic, Vnc, domain_xml

IMAGES = "/var/lib/libvirt/images"
# nft 1.1 lists the rules for IPv6 in other words than they were laid in.
_ADDRESSES = """
[[domain]]
match = "web01"
[domain.nics.0]
addresses = ["192.0.2.1", "2001:db8::1"]
"""


_DESKTOP = """
    <channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <graphics type='spice' autoport='yes'><listen type='address'/></graphics>
    <sound model='ich9'/><audio id='1' type='spice'/>
    <video><model type='virtio'/></video>
"""


# It fails where no TLS answers, or where the CA does not vouch for it.
_TLS = """
import socket, ssl, sys
known = ssl.create_default_context(cafile="/root/desk01.ca.pem")
known.wrap_socket(socket.create_connection(("127.0.0.1", sys.argv[1])), server_hostname="127.0.0.1")
"""


# It fails where QEMU does not answer at the descriptor that libvirt hands out.
_ATTACHED = """
import libvirt, socket, struct
desk = libvirt.open("qemu:///system").lookupByName("desk01")
end = socket.socket(fileno=desk.openGraphicsFD(0, libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH))
end.settimeout(20)
end.sendall(struct.pack("<4sIIIIBBIIII", b"REDQ", 2, 2, 22, 0, 1, 0, 1, 0, 18, 3))
assert end.recv(4) == b"REDQ"
"""


def defined(host: Host, name: str, **parts: Any) -> str:
    """A domain with a disk of its own, on a base image that all share; enrolled by the service."""
    host.run(
        f"cd {IMAGES} && {{ [ -e base.qcow2 ] || qemu-img create -q -f qcow2 base.qcow2 16M; }} &&"
        f" qemu-img create -q -f qcow2 -b {IMAGES}/base.qcow2 -F qcow2 {name}.qcow2"
    )
    disk = Disk(f"{IMAGES}/{name}.qcow2")
    host.define(domain_xml(name, disks=[disk], vnc=Vnc(), **parts))
    return name


def started(host: Host, name: str) -> str:
    """Start it as an admin does, once the service has seen it; the pid of its QEMU."""
    host.until(f"virsh -q dumpxml {name} --inactive | grep -q warden:enrolment", seconds=60)
    host.run(f"virsh -q start {name}")
    return host.run(f"cat /run/libvirt/qemu/{name}.pid").stdout.strip()


def status(host: Host, name: str) -> dict[str, Any]:
    (found,) = json.loads(host.run(f"virt-warden status --json {name}", check=False).stdout)
    return dict(found)


@pytest.fixture(scope="module")
def cells(guarded: Host) -> dict[str, str]:
    """Two VMs, with the pids of their QEMUs."""
    guarded.run("ip link add br0 type bridge forward_delay 0 && ip link set br0 up")
    guarded.put("/etc/virt-warden/policy.d/addresses.toml", _ADDRESSES)
    for number, name in enumerate(("web01", "db01"), start=1):
        defined(guarded, name, nics=[Nic(f"52:54:00:00:00:0{number}", "br0")])
    return {name: started(guarded, name) for name in ("web01", "db01")}


def test_a_domain_that_is_defined_comes_under_guard_by_itself(
    guarded: Host, cells: dict[str, str]
) -> None:
    for name in cells:
        found = status(guarded, name)
        assert (found["user"], found["enrolled"]) == (f"vmw-{name}", True)


def test_each_vm_has_its_own_user_and_its_own_label(guarded: Host, cells: dict[str, str]) -> None:
    users, labels = set(), set()
    for name, pid in cells.items():
        users.add(guarded.run(f"stat -c %U /proc/{pid}").stdout)
        label = guarded.run(f"cat /proc/{pid}/attr/current").stdout.strip("\0\n")
        uuid = guarded.run(f"virsh -q domuuid {name}").stdout.strip()
        assert label == f"libvirt-{uuid} (enforce)"
        labels.add(label)
    assert users == {"vmw-web01\n", "vmw-db01\n"}
    assert len(labels) == 2


def test_every_promise_is_kept_and_apparmor_denied_nothing(
    guarded: Host, cells: dict[str, str]
) -> None:
    for name in cells:
        assert status(guarded, name)["breaches"] == []
    assert guarded.denials() == []


def test_a_desktop_with_spice_runs_in_its_cell_and_an_admin_gets_a_ticket_for_it(
    guarded: Host, cells: dict[str, str]
) -> None:
    """What virt-install and virt-manager make by default; saved and restored, too."""
    guarded.define(domain_xml("desk01", machine="q35", extra_devices=_DESKTOP))
    started(guarded, "desk01")
    guarded.run("virsh -q managedsave desk01 && virsh -q start desk01")
    assert status(guarded, "desk01")["breaches"] == []
    guarded.run("virt-warden console desk01 --out /root")
    given = guarded.run("cat /root/desk01.vv").stdout.splitlines()
    assert "type=spice" in given
    port = next(line for line in given if line.startswith("tls-port=")).partition("=")[2]
    guarded.run(f"python3 -c {shlex.quote(_TLS)} {port}")
    guarded.run(f"python3 -c {shlex.quote(_ATTACHED)}")
    assert guarded.denials() == []
    guarded.run("virsh -q destroy desk01")


def test_one_vms_user_reads_neither_the_others_disk_nor_writes_the_base(
    guarded: Host, cells: dict[str, str]
) -> None:
    refused = guarded.run(f"runuser -u vmw-web01 -- cat {IMAGES}/db01.qcow2", check=False)
    assert "Permission denied" in refused.stderr
    refused = guarded.run(f"runuser -u vmw-web01 -- sh -c ': >>{IMAGES}/base.qcow2'", check=False)
    assert refused.exit != 0
    guarded.run(f"runuser -u vmw-web01 -- head -c1 {IMAGES}/web01.qcow2")


def test_a_qemu_that_was_taken_over_opens_no_device_of_the_host_even_as_root(
    guarded: Host, cells: dict[str, str]
) -> None:
    """By its cgroup, with neither user nor AppArmor in the way."""
    disk = guarded.run("findmnt -no SOURCE /").stdout.strip()
    cgroup = guarded.run(f"cut -d: -f3 /proc/{cells['web01']}/cgroup").stdout.strip()
    scope, _, _ = cgroup.partition("/libvirt")

    def reads(device: str) -> str:
        """What is said to root, in the VM's cgroup, who reads a device."""
        enter = f"echo $$ >{shlex.quote(f'/sys/fs/cgroup{cgroup}/cgroup.procs')}"
        script = f"{enter} && head -c1 {device} >/dev/null"
        return guarded.run(f"sh -c {shlex.quote(script)}", check=False).stderr

    guarded.run(f"head -c1 {disk}")
    assert "Operation not permitted" in reads(disk)
    assert reads("/dev/urandom") == ""
    most = guarded.run(f"cat {shlex.quote(f'/sys/fs/cgroup{scope}/pids.max')}").stdout.strip()
    assert most.isdecimal(), "it could have as many tasks as the host"


def test_the_journal_tells_of_the_start(guarded: Host, cells: dict[str, str]) -> None:
    found = guarded.run("virt-warden log web01 --event verified").stdout
    assert "web01  verified" in found
    assert guarded.run("virt-warden log web01 --event breach").stdout == ""
    guarded.run("runuser -u nobody -- logger -t virt-warden event=forged")
    assert "forged" not in guarded.run("virt-warden log").stdout


def test_libvirtd_killed_and_restarted_finds_its_vms_guarded(
    guarded: Host, cells: dict[str, str]
) -> None:
    guarded.run("systemctl kill -s KILL libvirtd && systemctl start libvirtd && virsh version")
    for name, pid in cells.items():
        assert guarded.run(f"cat /run/libvirt/qemu/{name}.pid").stdout.strip() == pid
        assert status(guarded, name)["breaches"] == []


def test_a_saved_vm_goes_on_under_guard(guarded: Host, cells: dict[str, str]) -> None:
    guarded.run("virsh -q managedsave web01")
    guarded.run("virsh -q start web01")
    assert status(guarded, "web01")["breaches"] == []
    assert guarded.denials() == []


# As QEMU would make a call that its filter does not allow: any process of the VM's user will do.
_FORBIDDEN_CALL = """
import os, seccomp
narrow = seccomp.SyscallFilter(seccomp.ALLOW)
narrow.add_rule(seccomp.KILL_PROCESS, "getppid")
narrow.load()
os.getppid()
"""


def test_what_the_kernel_denies_is_told_with_its_domain(boot: Boot) -> None:
    host = boot("guarded")
    for name in ("web01", "db01"):
        defined(host, name)
        started(host, name)
    uuid = host.run("virsh -q domuuid web01").stdout.strip()
    assert host.run("virt-warden log --event denied").stdout == ""
    call = shlex.quote(_FORBIDDEN_CALL)
    host.run(f"runuser -u vmw-web01 -- python3 -c {call}", check=False)
    host.run(f"aa-exec -p libvirt-{uuid} -- cat /etc/shadow", check=False)
    host.until("virt-warden log web01 --event denied | grep -q AppArmor", seconds=60)
    told = host.run("virt-warden log web01 --event denied").stdout
    assert "web01  denied  by=seccomp" in told
    assert "system call getppid; QEMU was ended" in told
    assert "by=AppArmor" in told
    assert "/etc/shadow" in told
    assert host.run("virt-warden log db01 --event denied").stdout == ""
    items = json.loads(host.run("virt-warden audit --json", check=False).stdout)["items"]
    found = {i["subject"]: i["state"] for i in items if i["id"] == "vm.ended"}
    assert found == {"web01": "bad", "db01": "good"}


def test_a_reboot_brings_vms_back_guarded(boot: Boot) -> None:
    host = boot("guarded")
    defined(host, "web01")
    started(host, "web01")
    host.run("virsh -q autostart web01")
    # Nothing in this guest heeds the request to shut down: libvirt-guests would wait 300 s.
    host.put("/etc/default/libvirt-guests", "ON_SHUTDOWN=shutdown\nSHUTDOWN_TIMEOUT=1\n")
    host.reboot()
    host.until("virsh -q domstate web01 | grep -q running", seconds=120)
    assert status(host, "web01")["breaches"] == []
    assert host.run(f"stat -c %U {IMAGES}/web01.qcow2").stdout == "vmw-web01\n"


def test_a_vms_user_has_no_service_of_the_host_start_programs_for_it(
    guarded: Host, cells: dict[str, str]
) -> None:
    """logind lets every user have systemd start programs as that user, with no limit of ours."""
    del cells
    guarded.run("getent passwd alice >/dev/null || useradd -M alice")

    def lingers(name: str) -> bool:
        uid = guarded.run(f"id -u {name}").stdout.strip()
        place = "org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager"
        ask = f"busctl call {place} SetUserLinger ubb {uid} true false"
        done = guarded.run(f"runuser -u {name} -- {ask}", check=False)
        there = guarded.run(f"ls /var/lib/systemd/linger/{name}", check=False).exit == 0
        runs = guarded.run(f"systemctl is-active user@{uid}.service", check=False).exit == 0
        print(name, done, there, runs)
        return there or runs

    assert lingers("alice")
    assert not lingers("vmw-web01")
    guarded.run("loginctl disable-linger alice")


def test_a_power_cut_leaves_nothing_that_keeps_a_vm_from_starting(boot: Boot) -> None:
    host = boot("guarded")
    defined(host, "web01")
    started(host, "web01")
    host.run("sync")
    host.cut_power()
    host.power_on()
    host.run("virsh -q start web01")
    assert status(host, "web01")["breaches"] == []
    host.run("virsh -q destroy web01")
    assert host.run(f"stat -c %U:%a {IMAGES}/web01.qcow2").stdout == "root:644\n"


def test_removal_leaves_every_vm_startable_and_purge_nothing_of_ours(boot: Boot) -> None:
    host = boot("guarded")
    defined(host, "runs")
    defined(host, "rests")
    started(host, "runs")
    host.run("DEBIAN_FRONTEND=noninteractive apt-get remove -y virt-warden")
    assert host.run("virsh -q domstate runs").stdout.strip() == "running"
    host.run("virsh -q start rests")
    user = host.run("stat -c %U /proc/$(cat /run/libvirt/qemu/rests.pid)").stdout
    assert user == "libvirt-qemu\n"
    host.run("virsh -q destroy runs && virsh -q start runs")
    host.run("virsh -q destroy runs && virsh -q destroy rests")
    host.run("DEBIAN_FRONTEND=noninteractive apt-get purge -y virt-warden")
    assert host.run("ls /var/lib/virt-warden").stdout.split() == ["uids", "written"]
    assert host.run("ls /etc/virt-warden").stdout.split() == ["uids"]
    for command in (
        "getent passwd | grep vmw-",
        "ls /usr/share/virt-warden",
        "grep -r virt-warden /etc/apparmor.d /etc/libvirt/hooks",
    ):
        assert host.run(command, check=False).stdout == "", command

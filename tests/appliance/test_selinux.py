# SPDX-License-Identifier: GPL-2.0-or-later
"""A host with SELinux in AppArmor's place: first permissive, as Debian sets it up, then enforcing.

What an admin does in between is what docs/selinux.md says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.appliance.build import Image
from tests.appliance.hardware import Hardware
from tests.appliance.machine import Host
from tests.appliance.recipe import BOOKWORM
from tests.appliance.vm import IMAGES, Vm, defined
from tests.appliance.watched import watched
from tests.host.domain import Disk, Vnc, domain_xml

_POLICY = '[mac]\nsvirt = "required"\n'
_BASE, _CD, _LOG = f"{IMAGES}/base.qcow2", f"{IMAGES}/cd.iso", "/var/log/libvirt/qemu/serial.log"
_MODULES = "/usr/share/virt-warden/selinux"
_OURS = "/etc/libvirt/hooks /usr/lib/virt-warden /run/virt-warden /var/lib/virt-warden"
_UNCONFINED = """<seclabel type='dynamic' model='selinux'>
<baselabel>system_u:system_r:unconfined_t:s0</baselabel></seclabel>"""
_DENIED = "journalctl -b -o cat _TRANSPORT=audit | grep avc: | grep -v initrc_tmp_t"
_MODULE_SECONDS = 900


@pytest.fixture(scope="module")
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A host on which every VM must have a label of its own."""
    selinux_image: Image = request.getfixturevalue("selinux_image")
    with watched(request, selinux_image, Hardware()) as host:
        host.put("/etc/virt-warden/policy.d/mac.toml", _POLICY)
        yield host


@pytest.fixture(scope="module")
def web(host: Host) -> Vm:
    """A VM with a disk."""
    return defined(host, "web01")


@pytest.fixture(scope="module")
def rich(host: Host) -> Vm:
    """A VM with a disk upon a base, a CD, a console, and a serial port that is logged."""
    vm = Vm(host, "rich01")
    host.run(f"qemu-img create -q -f qcow2 {_BASE} 64M; truncate -s 1M {_CD}")
    host.run(f"qemu-img create -q -f qcow2 -b {_BASE} -F qcow2 {vm.disk}")
    cd = Disk(_CD, target="hdc", format="raw", readonly=True, device="cdrom")
    serial = f"<serial type='pty'><log file='{_LOG}'/></serial>"
    xml = domain_xml(vm.name, disks=[Disk(vm.disk), cd], vnc=Vnc(), extra_devices=serial)
    return defined(host, vm.name, xml)


def test_selinux_is_permissive_and_libvirt_labels_by_it(host: Host) -> None:
    assert host.run("getenforce").stdout == "Permissive\n"
    assert "<model>selinux</model>" in host.run("virsh capabilities").stdout
    item = _audit(host, "host.kernel.mac")
    assert (item["state"], item["seen"]) == ("bad", "SELinux, permissive")
    assert "setenforce 1" in item["fix"]
    assert f"semodule -i {_MODULES}/virt-warden.cil" in _configured(host)


def test_each_vm_has_a_label_of_its_own_and_gives_its_images_back(web: Vm, rich: Vm) -> None:
    before = [_type(vm, vm.disk) for vm in (web, rich)]
    for vm in (web.start(), rich.start()):
        _is_well(vm)
    assert _categories(web.label()) != _categories(rich.label())
    # libvirt labels these for all VMs to read, or not at all.
    assert [_type(rich, file) for file in (_BASE, _CD)] == ["virt_content_t"] * 2
    assert _type(rich, _LOG) == "virt_log_t"
    for vm in (web, rich):
        vm.virsh("destroy")
    assert [_type(vm, vm.disk) for vm in (web, rich)] == before == ["virt_image_t"] * 2


def test_what_a_permissive_selinux_does_not_hold_landlock_does(host: Host, web: Vm) -> None:
    web.start()
    assert "virt-warden: sandboxed by Landlock" in _log(web)
    web.virsh("destroy")


def test_an_image_that_lost_its_label_is_a_breach(host: Host, web: Vm) -> None:
    web.start()
    host.run(f"chcon -t svirt_image_t -l s0 {web.disk}")
    (breach,) = web.status()["breaches"]
    assert f"{web.disk} is labelled system_u:object_r:svirt_image_t:s0, not " in str(breach)
    assert host.run("virt-warden status web01", check=False).exit != 0
    web.virsh("destroy")


@pytest.mark.parametrize(
    ("label", "fix"),
    [
        ("<seclabel type='none' model='selinux'/>", "remove <seclabel type='none'>"),
        (_UNCONFINED, "remove <label> and <baselabel> from its <seclabel model='selinux'>"),
    ],
)
def test_a_vm_that_goes_without_a_label_of_its_own_is_refused(
    host: Host, label: str, fix: str
) -> None:
    vm = defined(host, "loose", domain_xml("loose", extra=label))
    refusal = vm.refusal()
    assert "mac.toml:2: it has no AppArmor or SELinux label of its own" in refusal
    assert fix in refusal
    vm.virsh("undefine")


@pytest.fixture
def may_enforce(request: pytest.FixtureRequest) -> None:
    """Where the rest of the host works under an enforcing policy."""
    if request.config.getoption("debian") != BOOKWORM.codename:
        pytest.skip("docs/selinux.md: enforcing was seen to work under Debian 12's policy alone")


@pytest.mark.usefixtures("may_enforce")
def test_a_host_that_enforces_starts_nothing_before_it_was_told_of_us(host: Host, web: Vm) -> None:
    host.run("setsebool virt_use_execmem 1 && setenforce 1")
    assert host.run("virsh start web01", check=False).exit != 0
    assert host.run("pgrep -f guest=web01", check=False).exit == 1
    host.run("setenforce 0")


@pytest.mark.usefixtures("may_enforce")
def test_told_of_us_it_enforces_and_vms_start_as_ever(host: Host, web: Vm, rich: Vm) -> None:
    modules = f"{_MODULES}/virt-warden.cil {_MODULES}/virt-warden-libvirt.cil"
    host.run(f"semodule -i {modules}", seconds=_MODULE_SECONDS)
    host.run(f"restorecon -R {_OURS} /usr/lib/libvirt")
    assert _configured(host) == ""
    # Made anew, each file under /run has its label by the policy.
    host.reboot()
    host.run("setsebool virt_use_execmem 1 && setenforce 1")
    for vm in (web.start(), rich.start()):
        _is_well(vm)
        assert "sandboxed by Landlock" not in _log(vm).split("starting up")[-1]
    more = f"{IMAGES}/more.qcow2"
    host.run(f"qemu-img create -q -f qcow2 {more} 16M && chmod 600 {more}")
    rich.virsh("attach-disk", more, "vdb", "--subdriver", "qcow2", "--live")
    _is_well(rich)
    assert _categories(_context(host, more)) == _categories(rich.label())
    web.virsh("managedsave")
    _is_well(web.start())
    assert _audit(host, "host.kernel.mac")["seen"] == "SELinux, enforcing"


@pytest.mark.usefixtures("may_enforce")
def test_hooks_work_without_the_service_and_keep_their_label(host: Host, web: Vm) -> None:
    host.run("systemctl stop virt-warden")
    web.virsh("destroy")
    web.start()
    host.run("systemctl start virt-warden")
    assert _configured(host) == ""
    web.virsh("destroy")
    _is_well(web.start())


@pytest.mark.usefixtures("may_enforce")
def test_nothing_of_ours_was_denied_what_it_needs(host: Host) -> None:
    denied = host.run(_DENIED, check=False).stdout.splitlines()
    assert any("permissive=0" in line for line in denied)  # they are logged
    known_by = ("virt-warden", "virt_warden", 'comm="qemu"')  # which is the hook's name
    ours = [line for line in denied if any(word in line for word in known_by)]
    # A just-in-time compiler in a library, which does without.
    assert [line for line in ours if "{ execmem }" not in line] == []


def _is_well(vm: Vm) -> None:
    """It runs as its own user and under its own label, and its image is its alone."""
    status = vm.status()
    assert status["breaches"] == []
    assert vm.user() == status["user"]
    label, image = vm.label(), _context(vm.host, vm.disk)
    assert label.startswith("system_u:system_r:svirt_t:s0:c")
    assert image.startswith("system_u:object_r:svirt_image_t:s0:c")
    assert _categories(label) == _categories(image)
    assert vm.host.run(f"virt-warden status {vm.name}").exit == 0


def _context(host: Host, path: str) -> str:
    return host.run(f"stat -c %C {path}").stdout.strip()


def _type(vm: Vm, path: str) -> str:
    return _context(vm.host, path).split(":")[2]


def _categories(label: str) -> str:
    return label.split(":", 4)[4]


def _log(vm: Vm) -> str:
    return vm.host.get(f"/var/log/libvirt/qemu/{vm.name}.log").decode()


def _configured(host: Host) -> str:
    """What the package says of what is amiss, when it puts its hooks in place."""
    return host.run("virt-warden package configure").stderr.strip()


def _audit(host: Host, check: str) -> dict[str, Any]:
    found = json.loads(host.run("virt-warden audit --json", check=False).stdout)
    (item,) = [item for item in found["items"] if item["id"] == check]
    return dict(item)

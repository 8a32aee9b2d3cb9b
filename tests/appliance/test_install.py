# SPDX-License-Identifier: GPL-2.0-or-later
"""An admin's way with the package: install it, upgrade, remove and purge it, with VMs running."""

from __future__ import annotations

from pathlib import Path

from tests.appliance import layers
from tests.appliance.machine import Host
from tests.appliance.vm import Vm, defined
from tests.appliance.watched import Boot
from tests.host.command import run

_PLAIN_USER = "libvirt-qemu"
# What an installation alters, and a purge must put back.
_TRACES = (
    "cat /etc/passwd /etc/group",
    "find /etc/libvirt/*.conf /etc/libvirt/hooks -type f | xargs sha256sum",
    # Where libvirt asks for drop-ins, as Debian 13's does, ours is among the abstractions.
    "find /etc/apparmor.d/{local,abstractions} -type f | sort | xargs sha256sum",
    # With a + where there is an ACL.
    "ls -ld /var/lib/libvirt/qemu | cut -c1-11",
    "ls -d /{etc,run,usr/lib,usr/share,var/lib}/virt-warden 2>/dev/null",
)


def test_vms_keep_running_through_the_packages_life_and_start_plainly_after_it(
    boot: Boot, package: Path, tmp_path: Path
) -> None:
    host = boot("plain")
    former = _traces(host)
    before = defined(host, "before").start()
    assert before.is_well()

    layers.install(host, package)
    before.await_enrolment()
    assert before.user() == _PLAIN_USER
    after = defined(host, "after").start()
    assert after.is_well()
    _restart(before)
    assert before.is_well()
    assert before.user() != after.user()

    pids = before.pid(), after.pid()
    layers.install(host, _next_version(package, tmp_path))
    assert (before.pid(), after.pid()) == pids
    assert before.is_well()
    assert after.is_well()
    before.virsh("destroy")
    assert before.owner() == "root"

    host.run("apt-get -q remove -y virt-warden", seconds=600)
    assert after.pid() == pids[1]
    _restart(after)
    before.start()
    for vm in (before, after):
        assert vm.is_well()
        vm.virsh("destroy")
        assert "virt-warden" not in vm.virsh("dumpxml", "--inactive")
    host.run("VIRT_WARDEN_FORGET_UIDS=1 apt-get -q purge -y virt-warden", seconds=600)
    assert _traces(host) == former


def _restart(vm: Vm) -> None:
    vm.virsh("destroy")
    vm.start()


def _traces(host: Host) -> list[str]:
    return [host.run(command, check=False).stdout for command in _TRACES]


def _next_version(package: Path, directory: Path) -> Path:
    """The same package with a higher version."""
    tree, control = directory / "tree", directory / "tree" / "DEBIAN" / "control"
    run("dpkg-deb", "-R", str(package), str(tree))
    lines = control.read_text().splitlines()
    control.write_text(
        "".join(f"{line}+1\n" if line.startswith("Version:") else f"{line}\n" for line in lines)
    )
    built = directory / package.name
    run("dpkg-deb", "--root-owner-group", "-b", str(tree), str(built))
    return built

# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks and ISOs on file servers: a start works, or its refusal says the way, and nothing sticks.

The servers are the host's own, and their mounts too. On `squashed`, root is nobody (exports(5),
root_squash). `kept` lets files belong to anybody. What is on `smb` belongs to whoever mounted it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.appliance.machine import Host
from tests.appliance.vm import IMAGES, Vm, defined
from tests.host.domain import Disk

_EXPORTS = """
/srv/squashed 127.0.0.1(rw,root_squash,no_subtree_check,insecure,fsid=1)
/srv/kept 127.0.0.1(rw,no_root_squash,no_subtree_check,insecure,fsid=2)
"""
_SMB = """
[global]
\tserver string = shared
[share]
\tpath = /srv/smb
\twriteable = yes
"""
_SERVE = """
set -e
mkdir -p /srv/squashed /srv/kept /srv/smb /mnt/squashed /mnt/kept /mnt/smb
systemctl start nfs-server
exportfs -ra
mount -t nfs -o vers=4.2 127.0.0.1:/srv/squashed /mnt/squashed
mount -t nfs -o vers=4.2 127.0.0.1:/srv/kept /mnt/kept
useradd -M smb
chown smb /srv/smb
ksmbd.adduser -a -p secret smb
modprobe ksmbd
systemctl start ksmbd
mount -t cifs -o username=smb,password=secret //127.0.0.1/share /mnt/smb
"""
# Each place, the file system that a message must name, and the directory on its server.
_PLACES = {
    "squashed": ("nfs4", "/srv/squashed"),
    "kept": ("nfs4", "/srv/kept"),
    "smb": ("cifs", "/srv/smb"),
}


@pytest.fixture(scope="module")
def served(guarded: Host) -> Host:
    guarded.put("/etc/exports", _EXPORTS)
    for name in ("ksmbd.conf", "smb.conf"):  # Debian 13's, Debian 12's
        guarded.put(f"/etc/ksmbd/{name}", _SMB)
    guarded.run(_SERVE)
    return guarded


@pytest.fixture
def cleared(served: Host) -> Iterator[Host]:
    """Afterwards no domain is left that runs, and none of a share's files."""
    yield served
    served.run("for each in $(virsh -q list --name); do virsh -q destroy $each; done")
    served.run("for each in $(virsh -q list --all --name); do virsh -q undefine $each; done")
    served.run("rm -rf /srv/squashed/* /srv/kept/* /srv/smb/*")


def _made(host: Host, place: str, name: str, make: str, mode: str) -> str:
    """Make a file on the server, as its owner there; its path on this host."""
    _, directory = _PLACES[place]
    owner = "smb" if place == "smb" else "root"
    file = f"{directory}/{name}"
    host.run(f"{make.format(file)} && chmod {mode} {file} && chown {owner} {file}")
    return f"/mnt/{place}/{name}"


def _disk(host: Host, place: str, name: str = "disk.qcow2", mode: str = "0644") -> str:
    return _made(host, place, name, "qemu-img create -q -f qcow2 {} 16M", mode)


def _stat(host: Host, path: str) -> str:
    return host.run(f"stat -c '%u:%g %a' {path}").stdout


def _lives(vm: Vm) -> None:
    """It starts, keeps its promises, and its stop leaves nothing for a later undo."""
    vm.start()
    assert vm.status()["breaches"] == []
    assert vm.host.denials() == []
    vm.virsh("destroy")
    assert _is_undone(vm.host)


def _is_undone(host: Host) -> bool:
    return host.run("ls /var/lib/virt-warden/domains/*/run.journal", check=False).exit != 0


def test_a_disk_that_can_be_its_vms_own_starts_again_and_again(cleared: Host) -> None:
    path = _disk(cleared, "kept")
    before = _stat(cleared, path)
    vm = defined(cleared, "own", disks=[Disk(path)])
    assert f"only a try tells whether {path}" in cleared.run("virt-warden check").stdout
    assert "refused" not in cleared.run("virt-warden enrol own").stdout
    for _ in range(2):
        _lives(vm)
        assert _stat(cleared, path) == before


@pytest.mark.parametrize("place", ["squashed", "smb"])
def test_another_is_refused_with_the_ways_out(cleared: Host, place: str) -> None:
    path = _disk(cleared, place)
    before = _stat(cleared, path)
    vm = defined(cleared, f"own-{place}", disks=[Disk(path)])
    for line in (cleared.run(f"virt-warden enrol {vm.name}").stdout, vm.refusal()):
        assert path in line
        assert f"its file system is {_PLACES[place][0]}" in line
        assert "move it to ext4, xfs or btrfs" in line
        assert ("no_root_squash" in line) is (place == "squashed")
    assert _stat(cleared, path) == before
    assert _is_undone(cleared)
    if place == "squashed":
        cleared.put("/etc/exports", _EXPORTS.replace("(rw,root_squash", "(rw,no_root_squash"))
        cleared.run("exportfs -ra")
    else:
        cleared.run(f"cp {path} {IMAGES}/moved.qcow2 && chmod 644 {IMAGES}/moved.qcow2")
        defined(cleared, vm.name, disks=[Disk(f"{IMAGES}/moved.qcow2")])
    try:
        _lives(vm)
    finally:
        cleared.put("/etc/exports", _EXPORTS)
        cleared.run("exportfs -ra")


def test_an_iso_and_a_base_that_everybody_may_read_start_where_root_is_nobody(
    cleared: Host,
) -> None:
    iso = _made(cleared, "squashed", "public.iso", "truncate -s 1M {}", "0644")
    base = _disk(cleared, "squashed", "base.qcow2")
    before = _stat(cleared, iso), _stat(cleared, base)
    overlay = f"{IMAGES}/overlay.qcow2"
    cleared.run(f"qemu-img create -q -f qcow2 -b {base} -F qcow2 {overlay}")
    _lives(defined(cleared, "public", disks=[Disk(overlay), _iso(iso)]))
    assert (_stat(cleared, iso), _stat(cleared, base)) == before


def _iso(path: str) -> Disk:
    return Disk(path, target="sda", format="raw", readonly=True, device="cdrom")


def test_an_iso_that_not_everybody_may_read_is_refused_where_there_are_no_acls(
    cleared: Host,
) -> None:
    iso = _made(cleared, "kept", "closed.iso", "truncate -s 1M {}", "0640")
    before = _stat(cleared, iso)
    vm = defined(cleared, "closed", disks=[_iso(iso)])
    line = vm.refusal()
    assert iso in line
    assert "its file system is nfs4" in line
    assert "chmod o+r" in line
    assert _stat(cleared, iso) == before
    assert _is_undone(cleared)
    cleared.run(f"chmod o+r {iso}")
    _lives(vm)

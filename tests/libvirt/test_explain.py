# SPDX-License-Identifier: GPL-2.0-or-later
"""`virt-warden explain` tells what a start would do, and does nothing."""

from __future__ import annotations

from pathlib import Path

from tests.host.domain import Disk, Nic, Vnc, domain_xml
from tests.host.images import qcow2
from tests.host.syslog import Syslog
from tests.libvirt.snapshots import snapshot
from tests.libvirt.warden import POLICY, Warden, set_policy
from virtwarden.changes import Scope, journal
from virtwarden.paths import Paths

MAC = "52:54:00:00:00:01"


def told(warden: Warden, name: str) -> list[str]:
    """The changes that are told, without what differs from one start to the next."""
    lines = warden.command("explain", name).stdout.splitlines()
    return [line.removeprefix("  - ") for line in lines if line.startswith("  - ")]


def test_what_is_told_of_a_domain_that_never_ran_is_what_its_start_does(
    warden: Warden, images: Path, bridge: str, syslog: Syslog
) -> None:
    disk = Disk(qcow2(images / "never.qcow2"))
    warden.enrolled("never", disks=[disk], nics=[Nic(MAC, bridge, tap="never-tap")], vnc=Vnc())
    foretold = told(warden, "never")
    warden.libvirt.start("never")
    # Its last step goes on after `virsh start` has ended.
    syslog.wait_for("event=verified domain=never ", timeout=20)
    uuid = warden.status("never")["uuid"]
    done = [
        record.change.describe()
        for scope in Scope
        for record in journal.records(Paths(), uuid, scope)
        # libvirt chooses their names at the start.
        if "1-never" not in record.change.describe()
    ]
    kinds = [line.split(" (")[0] for line in foretold]
    assert len(kinds) == len(set(kinds))
    assert set(kinds) == {line.split(" (")[0] for line in done}
    assert any(line.startswith("drop what comes from never-tap") for line in foretold)


def test_the_tap_that_libvirt_will_choose_goes_by_a_stand_in(warden: Warden, bridge: str) -> None:
    warden.enrolled("web01", nics=[Nic(MAC, bridge)])
    assert any(
        f"its-tap with source MAC other than {MAC}" in line for line in told(warden, "web01")
    )


def test_it_changes_nothing(warden: Warden, images: Path, bridge: str) -> None:
    warden.enrolled("web01", disks=[Disk(qcow2(images / "web01.qcow2"))], nics=[Nic(MAC, bridge)])
    trees = [images, Paths().run, *filter(Path.exists, [Paths().state])]
    before = snapshot(trees)
    told(warden, "web01")
    assert snapshot(trees) == before


def test_each_rule_is_told_with_its_line(warden: Warden) -> None:
    set_policy('managed = ["*"]\n[[domain]]\nmatch = "web*"\nnetwork.vlan_tags = "allow"\n')
    warden.enrolled("web01")
    said = warden.command("explain", "web01").stdout
    assert f"  network.vlan_tags = allow   ({POLICY}:4)\n" in said
    assert "  network.mac_spoofing = deny   (built-in default)\n" in said


def test_a_start_that_would_be_refused_is_told_with_every_reason(warden: Warden) -> None:
    warden.libvirt.define(domain_xml("web01", vnc=Vnc(listen="192.0.2.1")))
    done = warden.command("explain", "web01", check=False)
    assert done.returncode == 1
    assert "refused: it is not enrolled; fix: virt-warden enrol web01\n" in done.stdout
    assert "VNC would listen on 192.0.2.1" in done.stdout
    assert "(prepare)" not in done.stdout


def test_a_domain_that_is_left_alone_is_told_by_which_line(warden: Warden) -> None:
    set_policy("managed = []\n")
    warden.libvirt.define(domain_xml("web01"))
    said = warden.command("explain", "web01").stdout
    assert said == f"web01 is unmanaged ({POLICY}:1): virt-warden does not guard it.\n"

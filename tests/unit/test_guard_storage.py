# SPDX-License-Identifier: GPL-2.0-or-later
"""The storage guard: which files a domain may have, and what becomes of them."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import xmls
from fake_host import (
    IMAGES,
    KVM,
    UID,
    FakeHost,
    account_of,
    case_of,
    process_of,
    refusal,
    refusals,
    rules,
)

from virtwarden.changes import (
    Change,
    Claim,
    ClearWay,
    GrantAccess,
    LockShared,
    RequireUnopened,
    SetAccess,
    TakeBack,
    TakeDirectory,
)
from virtwarden.domain.model import stamp
from virtwarden.guards import host as host_guard
from virtwarden.guards import storage
from virtwarden.guards.base import Case, Op

DISK = xmls.DISK
BASE = f"{IMAGES}/base.qcow2"
READ_ONLY = {"inside": "<readonly/>", "in_source": xmls.UNLABELLED}
SHARED = {"inside": "<shareable/>", "in_source": xmls.UNLABELLED}


@pytest.fixture
def host() -> FakeHost:
    """A host with one image of a domain and one base of several."""
    made = FakeHost()
    made.file(DISK)
    made.file(BASE, 0o644)
    made.accounts["vmw-web01"] = account_of("vmw-web01", xmls.UUID)
    return made


def case(host: FakeHost, devices: str = "", op: Op = Op.PREPARE, os: str = "", **more: Any) -> Case:
    return case_of(xmls.domain(devices or xmls.disk(), os=os), rules(**more), host, op)


def claim(domain: str = xmls.OTHER, **more: Any) -> Claim:
    return replace(Claim("/x", 0, 0, domain, name="db01", write=True, shareable=False), **more)


# Attacks: the path


@pytest.mark.parametrize(
    "path", ["web01.img", "./a", f"{IMAGES}/../a", f"{IMAGES}//a", f"/{IMAGES}/a", f"{IMAGES}/"]
)
def test_a_path_that_is_not_plain_is_refused(host: FakeHost, path: str) -> None:
    line = refusal(storage, case(host, xmls.disk(path)))
    assert "is not a plain absolute path" in line


@pytest.mark.parametrize("blank", [f" {DISK}", f"{DISK} "])
def test_a_name_with_a_blank_is_another_file(host: FakeHost, blank: str) -> None:
    assert refusal(storage, case(host, xmls.disk(blank)))


def test_a_symlink_as_an_image_is_refused_with_where_it_leads(host: FakeHost) -> None:
    host.symlink(f"{IMAGES}/link.img", DISK)
    line = refusal(storage, case(host, xmls.disk(f"{IMAGES}/link.img")))
    assert f"{IMAGES}/link.img is a symlink; fix: name {DISK}" in line


def test_a_symlink_on_the_way_is_refused(host: FakeHost) -> None:
    host.symlink("/srv/images", IMAGES)
    line = refusal(storage, case(host, xmls.disk("/srv/images/web01.qcow2")))
    assert "/srv/images is a symlink" in line
    assert f"name {DISK}" in line


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (lambda h: h.directory(IMAGES, 0o777), "can be written by everyone"),
        (lambda h: h.directory(IMAGES, 0o1777), "can be written by everyone"),
        (lambda h: h.directory(IMAGES, uid=UID), f"belongs to a VM's user (uid {UID})"),
        (lambda h: h.directory(IMAGES, uid=70009), "belongs to a VM's user (uid 70009)"),
        (lambda h: h.directory("/var/lib", uid=70009), "/var/lib belongs to a VM's user"),
        (lambda h: h.directory(IMAGES, 0o775, gid=KVM), "by VMs' users, through group 106"),
        (lambda h: h.directory(IMAGES, 0o775, gid=70009), "by VMs' users, through group 70009"),
        (lambda h: h.directory(IMAGES, 0o775, writers=(70009,)), "through its ACL"),
        (lambda h: h.directory(IMAGES, 0o775, writers=(KVM,)), "through its ACL"),
        (lambda h: h.directory(IMAGES, uid=33), "belongs to a system user (uid 33)"),
        (lambda h: h.directory("/var/lib", uid=64055), "/var/lib belongs to a system user"),
    ],
)
def test_a_path_that_a_vms_user_could_swap_is_refused(
    host: FakeHost, alter: Callable[[FakeHost], Any], reason: str
) -> None:
    alter(host)
    line = refusal(storage, case(host))
    assert f"disk vda ({DISK}): another user can swap it: " in line
    assert reason in line


@pytest.mark.parametrize(
    "alter",
    [
        lambda h: h.directory(IMAGES, 0o700),
        lambda h: h.directory(IMAGES, 0o775, gid=4),
        lambda h: h.directory(IMAGES, 0o2770, uid=1000, gid=1000),
        lambda h: h.directory(IMAGES, 0o755, gid=KVM),
        lambda h: h.directory(IMAGES, 0o775, writers=(1000,)),
    ],
)
def test_a_directory_that_no_vms_user_can_write_passes(
    host: FakeHost, alter: Callable[[FakeHost], Any]
) -> None:
    alter(host)
    assert refusals(storage, case(host)) == []


# Attacks: the file


def test_a_file_that_is_not_there_is_refused(host: FakeHost) -> None:
    assert "it is not there" in refusal(storage, case(host, xmls.disk(f"{IMAGES}/no.img")))


@pytest.mark.parametrize("policy", ["optional", "requisite"])
def test_a_file_that_libvirt_may_leave_out_can_be_missing(host: FakeHost, policy: str) -> None:
    source = f"file='{IMAGES}/no.iso' startupPolicy='{policy}'"
    assert refusals(storage, case(host, xmls.disk(source=source, **READ_ONLY))) == []


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFDIR])
def test_what_is_neither_file_nor_block_device_is_refused(host: FakeHost, kind: int) -> None:
    host.file("/srv/thing", kind=kind)
    line = refusal(storage, case(host, xmls.disk("/srv/thing")))
    assert "not a regular file or block device" in line


def test_a_hard_link_to_somebody_elses_file_is_refused(host: FakeHost) -> None:
    host.file(DISK, links=2)
    line = refusal(storage, case(host))
    assert "it has 2 hard links" in line
    assert f"find -xdev -samefile {DISK}" in line


def test_a_device_with_many_names_passes(host: FakeHost) -> None:
    host.block("/dev/dm-3", rdev=64771, links=2)
    assert refusals(storage, case(host, xmls.disk("/dev/dm-3", kind="block"))) == []


@pytest.mark.parametrize("uid", [70001, 70009, 99999])
def test_a_file_of_another_running_vms_user_is_refused(host: FakeHost, uid: int) -> None:
    host.file(DISK, uid=uid)
    host.running.add(uid)
    assert f"belongs to the user of another running VM (uid {uid})" in refusal(storage, case(host))
    host.running.clear()
    assert refusals(storage, case(host)) == []


def test_a_file_of_the_first_vms_user_is_refused_to_one_that_has_no_user_yet(
    host: FakeHost,
) -> None:
    host.accounts.clear()
    host.file(DISK, uid=70000)
    host.running.add(70000)
    assert "belongs to the user of another running VM (uid 70000)" in refusal(storage, case(host))


@pytest.mark.parametrize("uid", [0, 1000, 64055, 100000, UID])
def test_a_file_of_root_of_an_admin_or_of_its_own_passes(host: FakeHost, uid: int) -> None:
    host.file(DISK, uid=uid)
    assert refusals(storage, case(host)) == []


@pytest.mark.parametrize(
    "path",
    [
        "/etc/shadow",
        "/etc/virt-warden/policy.toml",
        "/usr/bin/qemu-system-x86_64",
        "/boot/vmlinuz",
        "/proc/kcore",
        "/sys/kernel/uevent_helper",
        "/run/virt-warden/policy.json",
        "/run/libvirt/libvirt.img",
        "/var/spool/cron/crontabs/root",
        "/var/lib/virt-warden/console-ca/ca-key.pem",
        "/var/lib/libvirt/qemu/save/db01.save",
        "/var/lib/libvirt/qemu/domain-1-db01/master-key.aes",
        "/var/lib/libvirt/swtpm/6f1c/tpm2/tpm2-00.permall",
    ],
)
def test_what_the_host_is_made_of_is_nobodys_disk(host: FakeHost, path: str) -> None:
    host.file(path)
    line = refusal(storage, case(host, xmls.disk(path)))
    assert "belong to the host" in line
    assert f"disk vda ({path})" in line


def test_a_log_of_a_serial_port_is_not_written_into_the_host(host: FakeHost) -> None:
    """virtlogd writes it as root, and the guest says what."""
    serial = "<serial type='pty'><log file='/etc/cron.d/evil'/></serial>"
    assert "files in /etc belong to the host" in refusal(storage, case(host, serial))


@pytest.mark.parametrize("path", ["/etc/passwd", "/usr/lib/x86_64-linux-gnu/libc.so.6"])
def test_the_hosts_own_files_are_not_closed_for_a_cdrom_either(host: FakeHost, path: str) -> None:
    host.file(path, 0o644)
    assert "belong to the host" in refusal(storage, case(host, xmls.disk(path, **READ_ONLY)))


@pytest.mark.parametrize(
    "path", ["/usr/share/virtio-win/virtio-win.iso", "/boot/vmlinuz", "/usr/lib/ipxe/ipxe.iso"]
)
def test_what_is_shipped_for_guests_can_be_read(host: FakeHost, path: str) -> None:
    host.file(path, 0o644)
    assert refusals(storage, case(host, xmls.disk(path, **READ_ONLY))) == []


def test_its_nvram_file_is_its_own(host: FakeHost) -> None:
    nvram = "/var/lib/libvirt/qemu/nvram/web01_VARS.fd"
    named = f"<nvram>{nvram}</nvram>"
    assert refusals(storage, case(host, os=named)) == []  # libvirt will make it
    host.file(nvram)
    assert refusals(storage, case(host, os=named)) == []
    assert SetAccess(nvram, 2049, host.inodes[nvram].number, "vmw-web01", 0o600) in storage.plan(
        case(host, os=named)
    )


def test_libvirts_own_directories_are_taken_before_anything_in_them_is_touched(
    host: FakeHost,
) -> None:
    state, nvram = "/var/lib/libvirt/qemu", "/var/lib/libvirt/qemu/nvram"
    host.directory(nvram, uid=64055)
    host.directory(state, 0o750, uid=64055)
    host.file(f"{nvram}/web01_VARS.fd")
    named = f"<nvram>{nvram}/web01_VARS.fd</nvram>"
    taken = [TakeDirectory(path, 2049, host.inodes[path].number) for path in (state, nvram)]
    assert refusals(storage, case(host, os=named)) == []
    assert storage.plan(case(host, os=named))[:2] == taken
    assert storage.plan(case(host, op=Op.STARTED)) == taken
    host.directory(state, 0o750)
    host.directory(nvram)
    assert storage.plan(case(host, op=Op.STARTED)) == []


def of_libvirts(host: FakeHost, op: Op) -> list[Change]:
    found = storage.plan(case(host, op=op))
    return [change for change in found if isinstance(change, TakeDirectory | ClearWay)]


def test_where_libvirt_makes_a_directory_for_a_domain_nobody_else_puts_one(
    host: FakeHost,
) -> None:
    """At `prepare` what was put there is removed, by the id that libvirt has chosen."""
    target = "/var/lib/libvirt/qemu/channel/target"
    host.directory(target, uid=64055)
    taken = TakeDirectory(target, 2049, host.inodes[target].number, "7")
    assert of_libvirts(host, Op.PREPARE) == [taken]
    assert of_libvirts(host, Op.STARTED) == [replace(taken, awaited="")]
    host.directory(target)
    assert of_libvirts(host, Op.PREPARE) == []


def test_what_is_left_under_a_domains_id_is_cleared_before_libvirt_follows_it(
    host: FakeHost,
) -> None:
    host.left = ("/var/lib/libvirt/qemu/domain-7-web01",)
    (change,) = of_libvirts(host, Op.PREPARE)
    assert isinstance(change, ClearWay)
    assert change.number == "7"
    assert "/var/lib/libvirt/qemu/ram" in change.directories
    assert of_libvirts(host, Op.STARTED) == []


@pytest.mark.parametrize("op", [Op.PREPARE, Op.START, Op.STARTED])
@pytest.mark.parametrize(("mode", "uid"), [(0o755, 64055), (0o770, 0), (0o1777, 0)])
def test_nobody_swaps_a_socket_of_another_vms_helper(
    host: FakeHost, op: Op, mode: int, uid: int
) -> None:
    place = "/run/libvirt/qemu/passt"
    host.directory(place, mode, uid=uid)
    awaited = "7" if op is Op.PREPARE else ""
    number = host.inodes[place].number
    assert of_libvirts(host, op) == [TakeDirectory(place, 2049, number, awaited, shared=True)]
    host.directory(place, 0o1775)
    assert of_libvirts(host, op) == []


# Attacks: what others use


@pytest.mark.parametrize(
    ("mine", "theirs", "clash"),
    [
        ({}, {}, True),
        ({}, {"write": False}, True),
        (READ_ONLY, {}, True),
        (READ_ONLY, {"write": False}, False),
        (SHARED, {}, True),
        (SHARED, {"shareable": True}, False),
        ({}, {"shareable": True}, True),
        ({}, {"domain": xmls.UUID}, False),
    ],
)
def test_a_file_is_written_by_one_running_domain_unless_both_agree(
    host: FakeHost, mine: dict[str, Any], theirs: dict[str, Any], clash: bool
) -> None:
    disk = host.inodes[DISK]
    host.claims.append(claim(device=disk.device, number=disk.number, **theirs))
    found = refusals(storage, case(host, xmls.disk(**mine)))
    assert bool(found) is clash
    assert all("running domain db01 also uses it" in line for line in found)


def test_a_device_is_one_device_under_all_its_names(host: FakeHost) -> None:
    host.block("/dev/vg0/web01", rdev=64771)
    host.claims.append(claim(device=64771, number=0))
    line = refusal(storage, case(host, xmls.disk("/dev/vg0/web01", kind="block")))
    assert "running domain db01 also uses it" in line


_DISK, _PARTITION, _SIBLING = 2064, 2065, 2066
_ON_THE_DISK = {_PARTITION: ((_DISK, 0),), _SIBLING: ((_DISK, 0),)}


@pytest.mark.parametrize(
    ("mine", "theirs", "clash"),
    [
        (_DISK, _PARTITION, True),
        (_PARTITION, _DISK, True),
        (_PARTITION, _SIBLING, False),
        (_PARTITION, _PARTITION, True),
    ],
)
def test_a_disk_and_its_partition_are_one_disk_and_two_partitions_are_not(
    host: FakeHost, mine: int, theirs: int, *, clash: bool
) -> None:
    host.stacks.update(_ON_THE_DISK)
    host.block("/dev/mine", rdev=mine)
    host.claims.append(
        claim(path="/dev/theirs", device=theirs, number=0, below=_ON_THE_DISK.get(theirs, ()))
    )
    found = refusals(storage, case(host, xmls.disk("/dev/mine", kind="block")))
    assert bool(found) is clash
    if clash and mine != theirs:
        assert "running domain db01 also uses /dev/theirs, where the same data lies" in found[0]


def test_a_device_that_the_host_has_mounted_is_refused_unless_it_is_only_read(
    host: FakeHost,
) -> None:
    host.block("/dev/sdb", rdev=_DISK)
    host.held_devices.add("/dev/sdb")
    line = refusal(storage, case(host, xmls.disk("/dev/sdb", kind="block")))
    assert "the host itself uses it" in line
    assert "lsblk /dev/sdb" in line
    assert refusals(storage, case(host, xmls.disk("/dev/sdb", kind="block", **READ_ONLY))) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [({}, {}), (READ_ONLY, {}), ({}, READ_ONLY), (SHARED, {}), (SHARED, READ_ONLY)],
)
def test_one_file_in_two_places_of_a_domain_is_refused(
    host: FakeHost, first: dict[str, str], second: dict[str, str]
) -> None:
    """The read-only one is claimed as such, while the other one gets the file as its own."""
    both = xmls.disk(target="vda", **first) + xmls.disk(target="vdb", **second)
    found = refusals(storage, case(host, both))
    if first == second == {}:
        assert found == []  # libvirt refuses that itself; nothing of another is at stake
    else:
        assert f"disk vdb ({DISK}): it is the same file as disk vda ({DISK})" in found[0]


def test_a_network_image_whose_bases_nobody_names_is_refused_with_what_to_write(
    host: FakeHost,
) -> None:
    source = "protocol='nbd' name='a'"
    line = refusal(storage, case(host, xmls.disk(kind="network", source=source, form="qcow2")))
    assert "does not name its base images" in line
    assert "virt-warden enrol" not in line
    assert "virsh edit web01" in line
    assert "<backingStore/>" in line
    disk = xmls.disk(kind="network", source=source, form="qcow2", inside="<backingStore/>")
    assert refusals(storage, case(host, disk)) == []


@pytest.mark.parametrize(
    ("mode", "takes_acls", "shared", "alone"),
    [
        (0o644, False, READ_ONLY, True),
        (0o644, True, READ_ONLY, False),
        (0o640, False, READ_ONLY, False),
        (0o646, False, READ_ONLY, False),
        (0o644, False, SHARED, False),
    ],
)
def test_a_shared_file_is_left_alone_only_where_all_can_read_it_and_no_acl_can_be_had(
    host: FakeHost, mode: int, *, takes_acls: bool, shared: dict[str, str], alone: bool
) -> None:
    host.file(BASE, mode, takes_acls=takes_acls)
    found = storage.plan(case(host, xmls.disk(BASE, **shared)))
    assert any(isinstance(change, Claim) for change in found)
    assert any(isinstance(change, LockShared) for change in found) is not alone
    running = case(host, xmls.disk(BASE, **shared), Op.STARTED)
    breaches = storage.verify(running, process_of(host.accounts["vmw-web01"]))
    assert bool(breaches) is (bool(mode & 0o007) and not alone)


@pytest.mark.parametrize("writer", [{"uid": 70007}, {"mode": 0o664, "gid": KVM}])
def test_a_public_file_without_an_acl_is_not_left_to_a_vms_user_that_can_write_it(
    host: FakeHost, writer: dict[str, int]
) -> None:
    host.file(BASE, **{"mode": 0o644, "takes_acls": False, **writer})
    found = storage.plan(case(host, xmls.disk(BASE, **READ_ONLY)))
    assert any(isinstance(change, LockShared) for change in found)


def test_what_is_its_own_and_what_is_shared_are_not_one_file(host: FakeHost) -> None:
    memory = f"<memory><source><path>{DISK}</path></source><target><readonly/></target></memory>"
    line = refusal(storage, case(host, xmls.disk(**READ_ONLY) + memory))
    assert "the memory's file" in line
    assert "is the same file as disk vda" in line


def test_a_base_that_is_a_writable_disk_as_well_is_refused(host: FakeHost) -> None:
    """Other domains may run on the base: libvirt would give it to this domain's user."""
    overlay = xmls.disk(form="qcow2", inside=xmls.base(BASE))
    line = refusal(storage, case(host, overlay + xmls.disk(BASE, target="vdb")))
    assert f"disk vdb ({BASE}): it is the same file as base of disk vda" in line


def test_a_device_under_two_names_is_the_same_file(host: FakeHost) -> None:
    host.block("/dev/dm-3", rdev=64771)
    host.block("/dev/vg0/web01", rdev=64771)
    two = xmls.disk("/dev/dm-3", kind="block") + xmls.disk(
        "/dev/vg0/web01", kind="block", target="vdb", **READ_ONLY
    )
    assert "the same file as disk vda (/dev/dm-3)" in refusal(storage, case(host, two))


@pytest.mark.parametrize(
    ("writer", "noted", "refused"),
    [
        (xmls.OTHER, BASE, True),
        (xmls.OTHER, "", False),
        (xmls.UUID, BASE, False),
        ("", BASE, False),
    ],
)
def test_a_base_out_of_a_header_is_not_another_domains_disk(
    host: FakeHost, writer: str, noted: str, refused: bool
) -> None:
    """One that the admin wrote into the XML may be, and so may the domain's own former disk."""
    host.writers[BASE] = writer
    notes = (
        f"<metadata><warden:enrolment><warden:disk target='vda'><warden:backing depth='0'"
        f" of='{stamp(DISK)}' base='{noted}'/></warden:disk></warden:enrolment></metadata>"
    )
    xml = xmls.domain(xmls.disk(form="qcow2", inside=xmls.base(BASE)), extra=notes)
    found = refusals(storage, case_of(xml, rules(), host))
    assert bool(found) is refused
    assert all(f"its base {BASE} is a disk that domain {xmls.OTHER}" in line for line in found)


def test_two_disks_on_one_base_pass(host: FakeHost) -> None:
    host.file(f"{IMAGES}/second.qcow2")
    two = xmls.disk(form="qcow2", inside=xmls.base(BASE)) + xmls.disk(
        f"{IMAGES}/second.qcow2", form="qcow2", target="vdb", inside=xmls.base(BASE)
    )
    assert refusals(storage, case(host, two)) == []


# Attacks: the XML


@pytest.mark.parametrize("kind", ["volume", "dir"])
@pytest.mark.parametrize("excepted", [frozenset(), frozenset({"host-devices"})])
def test_a_disk_whose_file_the_xml_does_not_name_is_refused(
    host: FakeHost, kind: str, excepted: frozenset[str]
) -> None:
    line = refusal(storage, case(host, xmls.disk("/srv", kind=kind), exceptions=excepted))
    assert f"of type {kind}" in line
    assert "virsh vol-path" in line


@pytest.mark.parametrize("kind", ["nvme", "vhostuser", "vhostvdpa", "unheard-of"])
def test_a_disk_of_a_kind_that_is_no_file_is_for_the_guard_of_the_host(
    host: FakeHost, kind: str
) -> None:
    found = case(host, xmls.disk("/dev/x", kind=kind, source="type='pci'"))
    assert refusals(storage, found) == []
    assert refusals(host_guard, found)


@pytest.mark.parametrize("kind", ["volume", "dir"])
def test_a_base_of_such_a_kind_is_refused_as_well(host: FakeHost, kind: str) -> None:
    below = xmls.base(BASE).replace("type='file'", f"type='{kind}'")
    line = refusal(storage, case(host, xmls.disk(form="qcow2", inside=below)))
    assert f"of type {kind}" in line


def test_a_network_volume_passes(host: FakeHost) -> None:
    disk = xmls.disk(kind="network", source="protocol='rbd' name='pool/web01'")
    assert refusals(storage, case(host, disk)) == []


def test_an_image_whose_bases_are_not_spelled_out_is_refused(host: FakeHost) -> None:
    line = refusal(storage, case(host, xmls.disk(form="qcow2")))
    assert "libvirt would trust the image's header, which the guest can write" in line
    assert "virt-warden enrol web01" in line


@pytest.mark.parametrize(
    "devices",
    [
        xmls.disk(form="qcow2", inside=xmls.base(BASE).replace(xmls.UNLABELLED, "")),
        xmls.disk(inside="<readonly/>"),
        xmls.disk(inside="<shareable/>"),
        xmls.disk(inside="<readonly/>", in_source="<seclabel model='selinux' relabel='no'/>"),
        xmls.disk(inside="<readonly/>", in_source="<seclabel model='dac' relabel='yes'/>"),
    ],
)
def test_what_libvirt_would_give_away_though_others_use_it_is_refused(
    host: FakeHost, devices: str
) -> None:
    line = refusal(storage, case(host, devices))
    assert "libvirt would give" in line
    assert "virt-warden enrol web01" in line


@pytest.mark.parametrize(
    ("note", "path", "below", "stale"),
    [
        (DISK, DISK, BASE, False),
        (f"{IMAGES}/old.qcow2", DISK, BASE, True),
        (f"{IMAGES}/old.qcow2", DISK, "", True),
        (f"{IMAGES}/old.qcow2", DISK, f"{IMAGES}/mine.qcow2", False),
    ],
)
def test_a_chain_that_was_spelled_out_for_another_image_is_refused(
    host: FakeHost, note: str, path: str, below: str, stale: bool
) -> None:
    """libvirt would lay the new image on the former one's base, and the guest read rubbish."""
    host.file(f"{IMAGES}/mine.qcow2")
    chain = xmls.base(below) if below else "<backingStore/>"
    base = "" if not below else BASE
    notes = (
        f"<metadata><warden:enrolment><warden:disk target='vda'><warden:backing depth='0'"
        f" of='{stamp(note)}' base='{base}'/></warden:disk></warden:enrolment></metadata>"
    )
    xml = xmls.domain(xmls.disk(path, form="qcow2", inside=chain), extra=notes)
    found = refusals(storage, case_of(xml, rules(), host))
    assert bool(found) is stale
    assert all(
        "its image was replaced" in line and "virt-warden enrol web01" in line for line in found
    )


def test_an_empty_drive_passes(host: FakeHost) -> None:
    empty = "<disk type='file'><driver type='qcow2'/><target dev='sda'/><readonly/></disk>"
    assert refusals(storage, case(host, empty)) == []


def test_files_are_looked_at_before_libvirt_gives_them_away_and_not_after(host: FakeHost) -> None:
    gone = xmls.disk(f"{IMAGES}/gone.img")
    assert refusals(storage, case(host, gone, Op.START)) == []
    assert refusals(storage, case(host, gone, Op.STARTED)) == []


def test_what_is_gone_by_the_time_of_the_check_is_no_breach_of_access(host: FakeHost) -> None:
    assert verified(host, xmls.disk(f"{IMAGES}/gone.img")) == []


@pytest.mark.parametrize(
    "source", ["<source dir='/srv'/>", "<source socket='/run/fs.sock'/>", "<source name='t'/>", ""]
)
def test_a_shared_directory_is_refused_unless_the_policy_allows_it(
    host: FakeHost, source: str
) -> None:
    shared = f"<filesystem type='mount'>{source}<target dir='tag'/></filesystem>"
    assert 'shared_directories = "allow"' in refusal(storage, case(host, shared))
    assert refusals(storage, case(host, shared, shared_directories="allow")) == []


# Plan


def test_its_own_disk_is_claimed_and_given_to_its_user_alone(host: FakeHost) -> None:
    number = host.inodes[DISK].number
    assert storage.plan(case(host)) == [
        Claim(DISK, 2049, number, xmls.UUID, "web01", write=True, shareable=False),
        SetAccess(DISK, 2049, number, "vmw-web01", 0o600),
        RequireUnopened(DISK, 2049, number, reading=True),
    ]


def test_what_the_other_host_of_a_migration_has_open_is_its_own(host: FakeHost) -> None:
    host.arriving[xmls.UUID] = (49152, 49215)
    kinds = {type(change) for change in storage.plan(case(host))}
    assert RequireUnopened not in kinds
    assert SetAccess in kinds


@pytest.mark.parametrize(("xml", "permissions"), [(READ_ONLY, 4), (SHARED, 6)])
def test_what_is_shared_is_given_to_nobody(
    host: FakeHost, xml: dict[str, str], permissions: int
) -> None:
    _, lock, grant, *alone = storage.plan(case(host, xmls.disk(**xml)))
    number = host.inodes[DISK].number
    unopened = [RequireUnopened(DISK, 2049, number, reading=False)]
    assert alone == ([] if permissions & 2 else unopened)
    assert isinstance(lock, LockShared)
    assert isinstance(grant, GrantAccess)
    assert (grant.user, grant.permissions) == ("vmw-web01", permissions)


def test_a_kernel_is_taken_back_once_libvirt_has_given_it_away(host: FakeHost) -> None:
    host.file("/srv/vmlinuz", 0o644)
    os = "<kernel>/srv/vmlinuz</kernel>"
    host.directory("/var/lib/libvirt/qemu", 0o750)
    kinds = [type(change) for change in storage.plan(case(host, os=os))]
    assert kinds == [
        *(Claim, SetAccess, Claim, LockShared, GrantAccess),
        *(RequireUnopened, RequireUnopened),
    ]
    number = host.inodes["/srv/vmlinuz"].number
    taken_back = TakeBack("/srv/vmlinuz", 2049, number)
    assert storage.plan(case(host, op=Op.STARTED, os=os)) == [taken_back]
    assert storage.plan(case(host, op=Op.START, os=os)) == []


def test_closed_directories_are_opened_for_searching_alone(host: FakeHost) -> None:
    host.directory(IMAGES, 0o700)
    grant, *_ = storage.plan(case(host))
    assert isinstance(grant, GrantAccess)
    assert (grant.path, grant.permissions) == (IMAGES, 1)


# Promise


def verified(host: FakeHost, devices: str = "", os: str = "") -> list[str]:
    own = case(host, devices, Op.STARTED, os)
    return storage.verify(own, process_of(account_of("vmw-web01", xmls.UUID)))


def test_a_disk_of_its_users_alone_keeps_the_promise(host: FakeHost) -> None:
    host.file(DISK, 0o600, uid=UID, gid=UID)
    assert verified(host) == []


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ({"mode": 0o604, "uid": UID}, "open to everyone (mode 0604)"),
        ({"mode": 0o640, "uid": UID}, "open to others (mode 0640)"),
        ({"mode": 0o600, "uid": 0}, "belongs to uid 0, not to vmw-web01"),
        ({"mode": 0o600, "uid": 70009}, "belongs to uid 70009"),
    ],
)
def test_a_disk_that_others_reach_breaks_it(
    host: FakeHost, file: dict[str, int], sentence: str
) -> None:
    host.file(DISK, **file)
    assert any(sentence in breach for breach in verified(host))


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ({"mode": 0o400, "uid": UID}, "belongs to a VM's user"),
        ({"mode": 0o460, "writers": (UID,)}, "can be written by a VM's user"),
        ({"mode": 0o444}, "open to everyone"),
    ],
)
def test_a_base_that_a_vms_user_owns_or_writes_breaks_it(
    host: FakeHost, file: dict[str, Any], sentence: str
) -> None:
    host.file(DISK, 0o600, uid=UID, gid=UID)
    host.file(BASE, **file)
    (breach,) = verified(host, xmls.disk(form="qcow2", inside=xmls.base(BASE)))
    assert sentence in breach


@pytest.mark.parametrize(("link", "target"), [(DISK, "/etc/shadow"), (IMAGES, "/srv/others")])
def test_a_path_that_became_a_symlink_breaks_it(host: FakeHost, link: str, target: str) -> None:
    host.file(DISK, 0o600, uid=UID, gid=UID)
    host.symlink(link, target)
    (breach,) = verified(host)
    assert f"{DISK} is reached by the symlink {link}" in breach


def test_a_locked_base_keeps_it(host: FakeHost) -> None:
    host.file(DISK, 0o600, uid=UID, gid=UID)
    host.file(BASE, 0o440, writers=())
    assert verified(host, xmls.disk(form="qcow2", inside=xmls.base(BASE))) == []

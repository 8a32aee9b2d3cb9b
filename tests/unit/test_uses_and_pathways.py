# SPDX-License-Identifier: GPL-2.0-or-later
"""What a domain does with each file of the host, and who could get in the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import xmls
from fake_host import IMAGES, KVM, FakeHost, rules
from hypothesis import given
from hypothesis import strategies as st

from virtwarden.domain.model import Domain, read
from virtwarden.domain.uses import Use, reviewed_paths, uses
from virtwarden.errors import HostError
from virtwarden.guards.pathways import (
    part_of_the_host,
    search_grants,
    service_swapper,
    swapper,
)
from virtwarden.paths import Paths
from virtwarden.system import files
from virtwarden.system.files import Inode

RANGE = (70000, 99999)
GROUPS = frozenset({KVM})


def domain(devices: str = "", os: str = "", extra: str = "") -> Domain:
    return read(xmls.domain(devices, os=os, extra=extra).encode())


def told(found: Domain) -> dict[str, Use]:
    return {use.path: use for use in uses(found)}


# Uses


def test_each_file_is_used_as_its_kind_is() -> None:
    found = told(
        domain(
            xmls.disk("/a", form="qcow2", inside=xmls.base("/base"))
            + xmls.disk("/ro", target="sda", inside="<readonly/>")
            + xmls.disk("/quorum", target="vdb", inside="<shareable/>")
            + xmls.disk("/dev/vg0/b", target="vdc", kind="block")
            + "<memory model='nvdimm'><source><path>/pmem</path></source></memory>"
            + "<memory><source><path>/rom</path></source><target><readonly/></target></memory>"
            + "<serial type='file'><source path='/log'/></serial>",
            "<nvram>/vars</nvram><kernel>/k</kernel>",
            "<sysinfo type='fwcfg'><entry name='opt/a' file='/ign'/></sysinfo>",
        )
    )
    assert found == {
        "/a": Use("disk vda", "/a", write=True),
        "/base": Use("base of disk vda", "/base", write=False, shared=True, overlaid=True),
        "/ro": Use("disk sda", "/ro", write=False, shared=True),
        "/quorum": Use("disk vdb", "/quorum", write=True, shared=True, shareable=True),
        "/dev/vg0/b": Use("disk vdc", "/dev/vg0/b", write=True),
        "/vars": Use("the NVRAM file", "/vars", write=True, must_exist=False),
        "/k": Use("the boot file", "/k", write=False, shared=True, taken_by_libvirt=True),
        "/ign": Use(
            *("the fw_cfg file", "/ign"),
            write=False,
            shared=True,
            taken_by_libvirt=True,
            secret=True,
        ),
        "/pmem": Use("the memory's file", "/pmem", write=True),
        "/rom": Use("the memory's file", "/rom", write=False),
        "/log": Use(
            *("the log of a serial port", "/log"), write=True, must_exist=False, made_by_root=True
        ),
    }


def test_a_copy_of_a_boot_file_is_the_domains_own() -> None:
    found = read(
        xmls.domain(
            os="<kernel>/c</kernel><initrd>/i</initrd>",
            extra="<metadata><warden:enrolment><warden:copy path='/c' of='/k'/>"
            "</warden:enrolment></metadata>",
        ).encode()
    )
    assert uses(found) == (
        Use("the boot file", "/c", write=False, must_exist=False, original="/k"),
        Use("the boot file", "/i", write=False, shared=True, taken_by_libvirt=True),
    )


def test_what_is_no_file_of_this_host_is_no_use() -> None:
    devices = (
        xmls.disk(kind="network", source="protocol='rbd' name='pool/a'")
        + xmls.disk(kind="volume", source="pool='p' volume='v'", target="vdb")
        + "<disk type='file' device='cdrom'><target dev='sda'/></disk>"
    )
    assert uses(domain(devices)) == ()


def test_the_same_use_twice_is_one_and_two_different_ones_are_two() -> None:
    shared = xmls.disk("/iso", target="sda", inside="<readonly/>")
    twice = domain(shared + shared.replace("sda", "sdb"))
    assert [use.what for use in uses(twice)] == ["disk sda"]
    differently = domain(shared + xmls.disk("/iso", target="vda"))
    assert [use.write for use in uses(differently)] == [False, True]


def test_disks_come_first_and_in_their_order() -> None:
    found = domain(
        xmls.disk("/a") + xmls.disk("/b", target="vdb"), "<nvram>/n</nvram><kernel>/k</kernel>"
    )
    assert [use.path for use in uses(found)] == ["/a", "/b", "/n", "/k"]


def test_nothing_is_reviewed_that_the_rules_do_not_let_pass() -> None:
    found = domain(
        "<filesystem><source dir='/srv'/></filesystem>"
        "<interface type='vhostuser'><source path='/run/ovs'/></interface>"
        "<tpm><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>",
        "<loader>/usr/share/OVMF/OVMF_CODE.fd</loader>",
    )
    assert reviewed_paths(found, rules()) == {"/usr/share/OVMF/OVMF_CODE.fd"}
    assert "/srv" in reviewed_paths(found, rules(shared_directories="allow"))
    assert "/run/ovs" in reviewed_paths(found, rules(untapped="allow"))
    assert "/run/ovs" in reviewed_paths(found, rules(allow=("vhost-user /run/ovs",)))
    assert "/dev/tpm0" in reviewed_paths(found, rules(allow=("device /dev/tpm0",)))
    former = reviewed_paths(found, rules(exceptions=frozenset({"host-devices"})))
    assert {"/srv", "/run/ovs", "/dev/tpm0"} & former == {"/dev/tpm0"}


# Reach


def step(mode: int = 0o755, **more: object) -> Inode:
    made = Inode("/srv", 1, 2, 0o040000 | mode, uid=0, gid=0, links=2)
    return replace(made, **more)  # type: ignore[arg-type]


def test_search_is_granted_only_where_not_everyone_has_it() -> None:
    steps = [step(0o755), step(0o700, path="/srv/a"), step(0o711, path="/srv/b")]
    assert [(g.path, g.user, g.permissions) for g in search_grants(steps, "vmw-a")] == [
        ("/srv/a", "vmw-a", 1)
    ]


@pytest.mark.parametrize(
    "safe",
    [
        step(),
        step(0o700, uid=1000),
        step(0o775, gid=1000),
        step(0o755, gid=KVM),
        step(0o775, writers=(1000,)),
        step(uid=69999),
        step(uid=100000),
    ],
)
def test_a_step_that_no_vm_can_write_is_safe(safe: Inode) -> None:
    assert swapper([step(), safe], RANGE, GROUPS) == ""


@pytest.mark.parametrize(
    "open_to_vms",
    [
        step(uid=70000),
        step(uid=99999),
        step(0o757),
        step(0o1777),
        step(0o775, gid=KVM),
        step(0o775, gid=70000),
        step(0o775, writers=(0, 70000)),
        step(0o775, writers=(KVM,)),
    ],
)
def test_a_step_that_a_vm_can_write_is_named(open_to_vms: Inode) -> None:
    assert swapper([step(path="/"), open_to_vms], RANGE, GROUPS).startswith("/srv ")


@pytest.mark.parametrize(
    "of_a_service",
    [
        *(step(uid=uid) for uid in (1, 33, 999, 60000, 61184, 64055, 65519, 65534)),
        step(0o775, gid=33),
        step(0o775, gid=61184),
        step(0o775, writers=(33,), writing_users=(33,)),
        step(0o775, writers=(110,), writing_users=(110,)),
        step(0o775, writers=(33,)),
    ],
)
def test_a_step_that_a_system_user_can_write_is_named(of_a_service: Inode) -> None:
    found = service_swapper([step(path="/"), of_a_service], frozenset({33}))
    assert found is not None
    assert found.what.startswith("/srv ")


@pytest.mark.parametrize(
    ("of_a_service", "command"),
    [
        (step(uid=33), "chown root /srv"),
        (step(0o775, gid=33), "chmod g-w /srv"),
        (step(0o775, writers=(33,), writing_users=(33,)), "setfacl -x u:33 /srv"),
        (step(0o775, writers=(33,)), "setfacl -x g:33 /srv"),
    ],
)
def test_the_command_takes_just_that_right_away(of_a_service: Inode, command: str) -> None:
    found = service_swapper([of_a_service], frozenset({33}))
    assert found is not None
    assert found.fix == command


@pytest.mark.parametrize(
    "safe",
    [
        step(),
        step(uid=1000),
        step(uid=59999),
        step(uid=65536),
        step(0o755, gid=33),
        step(0o775, gid=110),
        step(0o775, gid=1000),
        step(0o775, writers=(110, 1000), writing_users=(1000,)),
    ],
)
def test_a_step_of_root_or_of_people_is_no_system_users(safe: Inode) -> None:
    """Nor is one of a group that no system user begins with, such as libvirt's."""
    assert service_swapper([step(), safe], frozenset({33})) is None


@pytest.mark.parametrize(
    ("path", "write", "directory"),
    [
        ("/etc/shadow", False, "/etc"),
        ("/etc", True, "/etc"),
        ("/etcetera/disk", True, ""),
        ("/usr/share/a.iso", False, ""),
        ("/usr/share/a.iso", True, "/usr"),
        ("/boot/vmlinuz", False, ""),
        ("/boot/vmlinuz", True, "/boot"),
        ("/var/lib/libvirt/images/a", True, ""),
        ("/var/lib/libvirt/qemu/nvram/a", True, ""),
        ("/var/lib/libvirt/qemu/save/a", False, "/var/lib/libvirt/qemu"),
        ("/var/lib/virt-warden/uids", False, "/var/lib/virt-warden"),
        ("/run/virt-warden/x/tls/server-key.pem", False, "/run"),
        ("/dev/vg0/a", True, ""),
        ("/dev/shm/a", True, ""),
        ("/root/a.img", True, ""),
        ("/srv/etc/a", True, ""),
    ],
)
def test_what_the_host_is_made_of_is_told_from_what_guests_are(
    path: str, write: bool, directory: str
) -> None:
    assert part_of_the_host(path, Paths(), write=write) == directory


# The fake host of these tests answers as the real one


STEPS = st.lists(st.sampled_from(["dir", "file", "link", "none", ".", ".."]), max_size=4)


@given(STEPS, st.sampled_from(["/", "", "//"]))
def test_the_fake_host_finds_what_the_real_one_finds(names: list[str], start: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory).resolve()
        host = FakeHost()
        host.directory(directory, 0o700)
        for place in (root, root / "dir"):
            (place / "file").parent.mkdir(exist_ok=True)
            (place / "file").touch()
            (place / "link").symlink_to(root / "dir")
            host.file(str(place / "file"), 0o644)
            host.symlink(str(place / "link"), str(root / "dir"))
            host.directory(str(root / "dir"))
        path = start + "/".join([directory, *names]).lstrip("/")

        def answer(look: object) -> object:
            try:
                found = look(path)  # type: ignore[operator]
            except HostError as error:
                return str(error)
            leaf = found.leaf.path if found.leaf else None
            return [step.path for step in found.directories], leaf, found.symlink

        assert answer(host.look) == answer(files.look)


def test_what_cannot_be_looked_at_is_told(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot be looked at: File name too long; fix: as root"):
        files.look(f"{tmp_path}/{'n' * 300}")


def test_a_base_of_all_domains_lies_where_images_are() -> None:
    assert not part_of_the_host(f"{IMAGES}/base.qcow2", Paths(), write=False)

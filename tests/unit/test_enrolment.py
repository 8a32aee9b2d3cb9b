# SPDX-License-Identifier: GPL-2.0-or-later
"""Enrolment: what is done to a domain's XML, and that it is given back as it was."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xmls
from conftest import GOLDEN
from fake_host import IMAGES, account_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from virtwarden.domain import pools
from virtwarden.domain.bootfiles import copy_of
from virtwarden.domain.model import TAG_LIMIT, Domain, from_tree, parse, read
from virtwarden.enrolment import enrol as enrolment
from virtwarden.enrolment import headers
from virtwarden.enrolment.enrol import enrol_xml, is_enrolled, unenrol_xml, unenrolled
from virtwarden.errors import DomainError, HostError
from virtwarden.paths import Paths
from virtwarden.system.images import Image

PATHS = Paths(state=Path("/nonexistent"), libvirt_config=Path("/nonexistent"))
LABELLED = ("file", "block")
WRAPPER = "/usr/lib/virt-warden/qemu-system-x86_64"
QEMU = "/usr/bin/qemu-system-x86_64"
OVERLAY, LAYER, BASE = (f"{IMAGES}/{name}.qcow2" for name in ("web01", "layer", "base"))


class Images:
    """What qemu-img says of images; `asked` are those it was asked about."""

    def __init__(self) -> None:
        self.below: dict[str, Image | None] = {
            OVERLAY: Image(LAYER, "qcow2", is_device=False),
            LAYER: Image("/dev/vg0/base", "raw", is_device=True),
            BASE: None,
        }
        self.asked: list[str] = []

    def backing(self, path: str, image_format: str) -> Image | None:
        self.asked.append(path)
        return self.below.get(path)


@pytest.fixture(autouse=True)
def images(monkeypatch: pytest.MonkeyPatch) -> Images:
    made = Images()
    monkeypatch.setattr(headers.images, "backing", made.backing)
    monkeypatch.setattr(enrolment.users, "account_of", lambda uuid: None)
    monkeypatch.setattr(enrolment.users, "account", lambda name: None)
    return made


def canonical(xml: bytes) -> str:
    """The XML without what no reader of XML can tell apart."""
    return etree.tostring(etree.fromstring(xml), method="c14n2").decode()


def enrol(xml: str | bytes) -> bytes:
    return enrol_xml(xml if isinstance(xml, bytes) else xml.encode(), "vmw-", PATHS)


def unenrol(xml: bytes) -> bytes:
    return unenrol_xml(xml, PATHS)


def plain(devices: str = "", **more: Any) -> str:
    """A domain that was never enrolled."""
    return xmls.domain(devices, **{"labels": "", "emulator": QEMU, **more})


def altered(xml: bytes, alter: Callable[[etree._Element], object]) -> bytes:
    root = etree.fromstring(xml)
    alter(root)
    return etree.tostring(root)


def drop(path: str) -> Callable[[etree._Element], None]:
    def act(root: etree._Element) -> None:
        found = root.find(path)
        assert found is not None
        parent = found.getparent()
        assert parent is not None
        parent.remove(found)

    return act


# What is done


def test_a_domain_gets_its_user_the_wrapper_and_its_bases_spelled_out() -> None:
    found = read(enrol(plain(xmls.disk(OVERLAY, form="qcow2"))))
    assert found.emulator == WRAPPER
    assert [(label.kind, label.label) for label in found.labels] == [
        ("static", "vmw-web01:vmw-web01")
    ]
    (disk,) = found.disks
    assert disk.is_spelled_out
    assert [(layer.kind, layer.path, layer.format) for layer in disk.layers] == [
        ("file", LAYER, "qcow2"),
        ("block", "/dev/vg0/base", "raw"),
    ]
    assert all(layer.relabel_off for layer in disk.layers)
    assert not disk.relabel_off


@pytest.mark.parametrize("inside", ["<readonly/>", "<shareable/>"])
def test_what_is_shared_stays_whose_it_is(inside: str) -> None:
    (disk,) = read(enrol(plain(xmls.disk(inside=inside)))).disks
    assert disk.relabel_off


def test_a_domain_without_a_uuid_gets_one_that_lasts() -> None:
    without = plain().replace(f"<uuid>{xmls.UUID}</uuid>", "")
    once = enrol(without)
    uuid = read(once).uuid
    assert read(enrol(once)).uuid == read(unenrol(once)).uuid == uuid
    empty = plain(uuid="")
    assert len(etree.fromstring(enrol(empty)).findall("uuid")) == 1


@pytest.mark.parametrize("name", ["", None])
def test_a_domain_without_a_name_is_none(name: str | None) -> None:
    xml = plain().replace("<name>web01</name>", "" if name is None else "<name/>")
    with pytest.raises(DomainError, match="has no <name>"):
        enrol(xml)


def test_a_uuid_in_capitals_is_the_same_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    own = account_of("vmw-old", xmls.UUID)
    monkeypatch.setattr(
        enrolment.users, "account_of", lambda uuid: own if uuid == xmls.UUID else None
    )
    found = read(enrol(plain(uuid=xmls.UUID.upper())))
    assert found.labels[0].label == "vmw-old:vmw-old"


@pytest.mark.parametrize("taken", [1, 2])
def test_a_name_that_is_anothers_is_passed_over(
    taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = enrolment.candidates("vmw-", "web01", xmls.UUID)
    monkeypatch.setattr(
        enrolment.users,
        "account",
        lambda name: account_of(name, xmls.OTHER) if name in names[:taken] else None,
    )
    assert read(enrol(plain())).labels[0].label == f"{names[taken]}:{names[taken]}"


def test_a_name_that_is_a_groups_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, _ = enrolment.candidates("vmw-", "web01", xmls.UUID)
    monkeypatch.setattr(enrolment.users, "group_id", {first: 1000}.get)
    assert read(enrol(plain())).labels[0].label == f"{second}:{second}"


def test_where_every_name_is_anothers_the_admin_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolment.users, "account", lambda name: account_of(name, xmls.OTHER))
    with pytest.raises(DomainError, match="fix: see whose it is: getent passwd vmw-"):
        enrol(plain())


def test_an_image_that_cannot_be_looked_at_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: str) -> None:
        raise HostError("no such image")

    monkeypatch.setattr(headers.images, "backing", refuse)
    with pytest.raises(HostError, match="no such image"):
        enrol(plain(xmls.disk(OVERLAY, form="qcow2")))


def test_only_images_of_this_host_are_looked_at(images: Images) -> None:
    enrol(
        plain(
            xmls.disk(form="raw")
            + xmls.disk(kind="network", source="protocol='rbd' name='a'", form="qcow2")
            + "<disk type='file' device='cdrom'><driver type='qcow2'/><target dev='sda'/></disk>"
        )
    )
    assert images.asked == []


@pytest.mark.parametrize("inside", ["<readonly/>", "<shareable/>"])
@pytest.mark.parametrize(("pool", "labelled"), [("p", True), ("q", False)])
def test_a_shared_volume_gets_the_label_of_a_shared_file_where_its_file_is_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, inside: str, pool: str, labelled: bool
) -> None:
    (tmp_path / "p.xml").write_text("<pool type='dir'><target><path>/srv</path></target></pool>")
    monkeypatch.setattr(pools, "KEPT", (tmp_path,))
    volume = xmls.disk(kind="volume", source=f"pool='{pool}' volume='v'", inside=inside)
    (disk,) = read(enrol(plain(volume))).disks
    assert disk.relabel_off == labelled


@pytest.mark.parametrize(
    ("kind", "source"),
    [("network", "protocol='rbd' name='a'"), ("volume", "pool='p' volume='v'")],
)
def test_an_image_that_nobody_can_look_at_is_never_said_to_stand_alone(
    kind: str, source: str
) -> None:
    """QEMU would read zeros where its base is, and what the guest writes would bury the base."""
    (disk,) = read(enrol(plain(xmls.disk(kind=kind, source=source, form="qcow2")))).disks
    assert disk.backing is None
    assert not disk.is_spelled_out


def test_a_volume_whose_file_is_known_is_enrolled_as_that_file_and_stays_a_volume(
    images: Images, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    directory, name = OVERLAY.rsplit("/", 1)
    (tmp_path / "p.xml").write_text(
        f"<pool type='dir'><target><path>{directory}</path></target></pool>"
    )
    monkeypatch.setattr(pools, "KEPT", (tmp_path,))
    before = plain(xmls.disk(kind="volume", source=f"pool='p' volume='{name}'", form="qcow2"))
    enrolled = enrol(before)
    (disk,) = read(enrolled).disks
    assert (disk.path, disk.is_spelled_out) == (OVERLAY, True)
    assert [layer.path for layer in disk.layers] == [LAYER, "/dev/vg0/base"]
    assert f'<source pool="p" volume="{name}"' in enrolled.decode()
    assert canonical(enrol(enrolled)) == canonical(enrolled)
    assert canonical(unenrol(enrolled)) == canonical(before.encode())


def test_nor_is_one_below_a_local_image() -> None:
    below = (
        "<backingStore type='network'><format type='qcow2'/>"
        "<source protocol='nbd' name='b'><host name='h'/></source></backingStore>"
    )
    (disk,) = read(enrol(plain(xmls.disk(OVERLAY, form="qcow2", inside=below)))).disks
    assert not disk.is_spelled_out


def test_a_network_disk_gets_no_label_which_libvirt_would_drop() -> None:
    source = "protocol='rbd' name='a'"
    for inside in ("<readonly/>", "<shareable/>"):
        found = enrol(plain(xmls.disk(kind="network", source=source, inside=inside)))
        assert not read(found).disks[0].relabel_off


def test_a_domain_without_devices_gets_the_wrapper_too() -> None:
    bare = f"<domain><name>a</name><uuid>{xmls.UUID}</uuid><os><type arch='x86_64'/></os></domain>"
    assert read(enrol(bare)).emulator == WRAPPER
    assert canonical(unenrol(enrol(bare))) == canonical(bare.encode())


# Once and again


def test_enrolling_twice_is_enrolling_once(images: Images) -> None:
    once = enrol(plain(xmls.disk(OVERLAY, form="qcow2")))
    assert canonical(enrol(once)) == canonical(once)


def test_a_copy_of_an_enrolled_domain_gets_a_user_of_its_own() -> None:
    """As virt-clone makes it: another name and UUID, and all else as it was."""
    enrolled = enrol(plain())
    copy = enrolled.replace(b"<name>web01<", b"<name>web02<")
    copy = copy.replace(read(enrolled).uuid.encode(), b"22222222-2222-4222-8222-222222222222")
    labels = read(enrol(copy)).labels
    assert [label.label for label in labels] == ["vmw-web02:vmw-web02"]


def test_an_image_is_asked_once_and_never_again(images: Images) -> None:
    """Whoever took over its QEMU since then can have written any base into it."""
    once = enrol(plain(xmls.disk(OVERLAY, form="qcow2")))
    assert images.asked == [OVERLAY, LAYER]
    images.below[OVERLAY] = Image("/etc/shadow", "raw", is_device=False)
    again = enrol(once)
    assert images.asked == [OVERLAY, LAYER]
    assert "/etc/shadow" not in again.decode()
    assert canonical(again) == canonical(once)


def test_another_image_in_its_place_is_asked(images: Images) -> None:
    once = enrol(plain(xmls.disk(OVERLAY, form="qcow2")))
    new = f"{IMAGES}/new.qcow2"
    images.below[new] = Image(BASE, "qcow2", is_device=False)
    swapped = altered(once, lambda root: root.find("devices/disk/source").set("file", new))  # type: ignore[union-attr]
    (disk,) = read(enrol(swapped)).disks
    assert [layer.path for layer in disk.layers] == [BASE]
    gone = altered(swapped, drop("devices/disk/backingStore"))
    (disk,) = read(enrol(gone)).disks
    assert [layer.path for layer in disk.layers] == [BASE]


def test_after_an_unenrolment_an_image_is_asked_anew(images: Images) -> None:
    once = enrol(plain(xmls.disk(OVERLAY, form="qcow2")))
    images.below[OVERLAY] = Image(BASE, "qcow2", is_device=False)
    (disk,) = read(enrol(unenrol(once))).disks
    assert [layer.path for layer in disk.layers] == [BASE]


# There and back


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("xml/*.prepare.xml")), ids=lambda f: f.name)
def test_what_libvirt_wrote_comes_back_as_it_was(file: Any) -> None:
    before = unenrol(file.read_bytes())
    assert not is_enrolled(before, PATHS)
    assert canonical(unenrol(enrol(before))) == canonical(before)


def test_what_was_never_enrolled_stays_as_it_is() -> None:
    xml = plain(xmls.disk(OVERLAY, form="qcow2"), labels=xmls.label("alice")).encode()
    assert canonical(unenrol(xml)) == canonical(xml)


SPACES = st.sampled_from(["", "\n", "\n  ", "<!-- see /etc/motd -->\n", "<?a b?>"])
LABELS = st.lists(
    st.sampled_from(
        [
            "<seclabel type='dynamic' model='apparmor' relabel='yes'/>",
            "<seclabel type='none' model='selinux'/>",
            "<seclabel type='static' model='dac' relabel='no'><label>a:b</label></seclabel>",
            "<seclabel type='dynamic' model='dac' relabel='yes'/>",
        ]
    ),
    unique_by=lambda label: re.findall(r"model='(\w+)'", label)[0],
)
METADATA = st.sampled_from(
    [
        "",
        "<metadata/>",
        "<metadata>\n</metadata>",
        "<metadata><!-- ours --></metadata>",
        "<metadata><a:b xmlns:a='urn:a' c='d'>text<a:e/></a:b></metadata>",
        "<metadata>\n  <lib:os xmlns:lib='urn:lib'/>\n  <x:y xmlns:x='urn:x'/>\n</metadata>",
    ]
)
EMULATORS = st.sampled_from(
    [
        "",
        "<emulator/>",
        f"<emulator>{QEMU}</emulator>",
        "<emulator>/opt/q</emulator>",
        f"<emulator><!-- ours -->{QEMU}</emulator>",
        "<emulator>/opt<!-- split -->/q<!-- end --></emulator>",
    ]
)
SOURCE_LABELS = st.sampled_from(
    [
        "",
        xmls.UNLABELLED,
        "<seclabel model='selinux' relabel='no'/>",
        "<seclabel model='dac' relabel='yes'><label>a:b</label></seclabel>",
        "<encryption format='luks'/><seclabel model='dac' relabel='yes'/><!-- x -->",
    ]
)
CHAINS = st.sampled_from(
    [
        "",
        "<backingStore/>",
        xmls.base(BASE),
        xmls.base(LAYER, below=""),
        xmls.base(LAYER).replace(xmls.UNLABELLED, ""),
        xmls.base(LAYER, below=xmls.base(BASE, below="")),
        "<backingStore type='network'><format type='raw'/><source protocol='nbd'/></backingStore>",
        "<!-- none -->\n<backingStore>\n</backingStore>\n",
    ]
)


@st.composite
def disks(draw: st.DrawFn) -> str:
    """One to four disks of all kinds, with different targets."""
    found = []
    for number in range(draw(st.integers(0, 4))):
        inside = draw(SPACES) + draw(st.sampled_from(["", "<readonly/>", "<shareable/>"]))
        disk = xmls.disk(
            draw(st.sampled_from([OVERLAY, LAYER, BASE, "/dev/vg0/a"])),
            target=f"vd{'abcd'[number]}",
            form=draw(st.sampled_from(["raw", "qcow2", "vmdk", ""])),
            kind=draw(st.sampled_from(["file", "block", "network", "volume"])),
            inside=inside + draw(CHAINS),
            in_source=draw(SOURCE_LABELS),
        )
        found.append(disk if draw(st.booleans()) else disk.replace("type=''", ""))
        found.append(draw(SPACES))
    return "".join(found)


@st.composite
def domains(draw: st.DrawFn) -> str:
    """A domain as somebody may have written it, with what enrolment alters in every shape."""
    spaces = [draw(SPACES) for _ in range(6)]
    parts = [
        f"<name>{draw(st.sampled_from(['web01', 'a b', 'root', '<!-- a -->web01']))}</name>",
        f"{spaces[0]}<uuid>{xmls.UUID}</uuid>{spaces[1]}",
        draw(METADATA) + spaces[2],
        "<os><type arch='x86_64'>hvm</type></os>",
        f"<devices>{spaces[3]}{draw(EMULATORS)}{spaces[4]}{draw(disks())}</devices>",
        draw(st.sampled_from(["", "<x:later xmlns:x='urn:x'>text</x:later>"])),
    ]
    labels = draw(LABELS)
    where = draw(st.sampled_from([0, 3, len(parts)]))
    parts[where:where] = [spaces[5].join(labels)]
    namespaces = draw(
        st.sampled_from(["", " xmlns:qemu='http://libvirt.org/x'", " xmlns:w='urn:w'"])
    )
    return f"<domain type='kvm'{namespaces}>{''.join(parts)}</domain>"


@given(domains())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_whatever_the_xml_it_comes_back_as_it_was(xml: str) -> None:
    enrolled = enrol(xml)
    assert canonical(unenrol(enrolled)) == canonical(xml.encode())
    assert canonical(enrol(enrolled)) == canonical(enrolled)
    found = from_tree(parse(enrolled))
    assert found.enrolment
    assert found.emulator == WRAPPER
    assert len([label for label in found.labels if label.model == "dac"]) == 1
    for disk in found.disks:
        if (disk.readonly or disk.shareable) and disk.has_source and disk.kind in LABELLED:
            assert disk.relabel_off
        layers = [layer for layer in disk.layers if layer.path and layer.kind in LABELLED]
        assert all(layer.relabel_off for layer in layers)


@given(domains())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_else_of_the_domain_is_touched(xml: str) -> None:
    before, after = from_tree(parse(xml.encode())), from_tree(parse(enrol(xml)))
    assert (before.name, before.uuid, before.nics) == (after.name, after.uuid, after.nics)
    assert [disk.path for disk in before.disks] == [disk.path for disk in after.disks]
    assert len(before.labels) <= len(after.labels)


# Somebody edits in between


@pytest.fixture
def edited() -> bytes:
    """An enrolled domain with a former label and two disks."""
    devices = xmls.disk(OVERLAY, form="qcow2") + xmls.disk(
        BASE, target="sda", form="qcow2", inside="<readonly/>"
    )
    return enrol(plain(devices, labels=xmls.label("alice")))


def original(domain: bytes) -> Domain:
    return from_tree(parse(unenrol(domain)))


def test_a_label_that_was_removed_is_put_back(edited: bytes) -> None:
    without = altered(edited, drop("seclabel"))
    assert [label.label for label in read(enrol(without)).labels] == ["vmw-web01:vmw-web01"]
    assert [label.label for label in original(without).labels] == ["alice:alice"]


def test_a_label_that_was_altered_is_ours_again(edited: bytes) -> None:
    forged = edited.replace(b"vmw-web01:vmw-web01", b"root:root")
    assert [label.label for label in read(enrol(forged)).labels] == ["vmw-web01:vmw-web01"]
    assert [label.label for label in original(forged).labels] == ["alice:alice"]


def test_an_emulator_that_was_altered_or_removed_is_the_wrapper_again(edited: bytes) -> None:
    assert read(enrol(edited.replace(WRAPPER.encode(), b"/opt/q"))).emulator == WRAPPER
    without = altered(edited, drop("devices/emulator"))
    assert read(enrol(without)).emulator == WRAPPER
    assert original(without).emulator == ""


def test_a_wrapper_that_was_noted_as_the_former_emulator_becomes_the_plain_qemu(
    edited: bytes,
) -> None:
    noted = re.sub(rb"(<warden:emulator>)[^<]*", rb"\1" + WRAPPER.encode(), edited)
    assert WRAPPER in str(noted)
    assert original(noted).emulator == "/usr/bin/qemu-system-x86_64"


def test_a_wrapper_in_a_domain_that_was_never_enrolled_becomes_the_plain_qemu() -> None:
    xml = xmls.domain(labels="", emulator=WRAPPER).encode()
    assert original(xml).emulator == "/usr/bin/qemu-system-x86_64"
    snapshot = b"<domainsnapshot>" + xml + b"</domainsnapshot>"
    plain = unenrolled(snapshot, PATHS)
    assert plain is not None
    assert b"<emulator>/usr/bin/qemu-system-x86_64</emulator>" in plain


def test_a_disk_that_was_removed_is_forgotten(edited: bytes) -> None:
    without = altered(edited, drop("devices/disk"))
    assert [disk.target for disk in original(without).disks] == ["sda"]
    assert [disk.target for disk in read(enrol(without)).disks] == ["sda"]


def test_a_disk_that_was_added_stays_as_it_was_written(edited: bytes) -> None:
    new = xmls.disk(LAYER, target="vdz", form="qcow2")
    added = altered(
        edited,
        lambda root: root.find("devices").append(etree.fromstring(new)),  # type: ignore[union-attr]
    )
    assert canonical(
        etree.tostring(etree.fromstring(unenrol(added)).findall("devices/disk")[2])
    ) == (canonical(new.encode()))
    again = enrol(added)
    assert all(disk.is_spelled_out for disk in read(again).disks)
    assert not original(again).disks[2].is_spelled_out


def test_a_disk_that_got_another_target_comes_back_all_the_same(edited: bytes) -> None:
    moved = edited.replace(b'dev="sda"', b'dev="sdb"').replace(b'dev="vda"', b'dev="vdq"')
    vdq, sdb = original(moved).disks
    assert (vdq.target, sdb.target) == ("vdq", "sdb")
    assert vdq.layers == ()
    assert not vdq.is_spelled_out
    assert not sdb.relabel_off


def test_disks_that_swapped_their_targets_come_back_each_as_itself(edited: bytes) -> None:
    swapped = (
        edited.replace(b'dev="sda"', b'dev="tmp"')
        .replace(b'dev="vda"', b'dev="sda"')
        .replace(b'dev="tmp"', b'dev="vda"')
    )
    overlay, base = original(swapped).disks
    assert (overlay.path, overlay.layers) == (OVERLAY, ())
    assert (base.path, base.relabel_off) == (BASE, False)


def test_another_image_in_a_disk_loses_what_was_said_of_the_former_one(edited: bytes) -> None:
    other = edited.replace(f'file="{BASE}"'.encode(), b'file="/srv/other.iso"')
    assert not original(other).disks[1].relabel_off


def test_a_chain_that_the_admin_wrote_in_place_of_ours_stays(edited: bytes) -> None:
    def rewrite(root: etree._Element) -> None:
        disk = root.find("devices/disk")
        assert disk is not None
        drop("backingStore")(disk)
        disk.append(etree.fromstring(xmls.base("/srv/mine.qcow2")))

    mine = altered(edited, rewrite)
    for found in (original(mine), read(enrol(mine))):
        assert [layer.path for layer in found.disks[0].layers] == ["/srv/mine.qcow2"]


def test_metadata_of_others_that_came_since_stays(edited: bytes) -> None:
    theirs = etree.fromstring("<a:b xmlns:a='urn:a'/>")
    added = altered(edited, lambda root: root.find("metadata").append(theirs))  # type: ignore[union-attr]
    assert etree.fromstring(unenrol(added)).find("metadata/{urn:a}b") is not None


@pytest.mark.parametrize("what", ["metadata", "metadata/*"])
def test_a_domain_whose_notes_are_gone_starts_without_us_after_an_unenrolment(
    edited: bytes, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = account_of("vmw-web01", xmls.UUID)
    monkeypatch.setattr(enrolment.users, "account_of", lambda uuid: own)
    lost = altered(edited, drop(what))
    assert is_enrolled(lost, PATHS)
    found = original(lost)
    assert found.emulator == QEMU
    assert found.labels == ()
    theirs = original(lost.replace(b"vmw-web01:vmw-web01", b"alice:alice"))
    assert [label.label for label in theirs.labels] == ["alice:alice"]
    again = enrol(lost)
    assert read(again).emulator == WRAPPER
    assert original(again).emulator == QEMU
    assert original(again).labels == ()


@pytest.mark.parametrize("value", ["", "x", "-1", "99", "../../etc/passwd"])
def test_notes_that_somebody_spoilt_break_nothing(edited: bytes, value: str) -> None:
    def spoil(root: etree._Element, number: int, name: str) -> None:
        [*root.iter("{*}enrolment", "{*}disk", "{*}backing", "{*}relabel")][number].set(name, value)

    notes = [*etree.fromstring(edited).iter("{*}enrolment", "{*}disk", "{*}backing", "{*}relabel")]
    for number, note in enumerate(notes):
        for name in note.attrib:
            spoilt = altered(edited, lambda root, at=(number, str(name)): spoil(root, *at))
            assert read(enrol(spoilt)).emulator == WRAPPER
            assert original(spoilt).labels[0].label == "alice:alice"


# What is booted

_BOOTED = (
    "<kernel>/srv/vmlinuz</kernel><initrd>/srv/initrd</initrd><shim>/srv/shim.efi</shim>"
    "<dtb>/srv/board.dtb</dtb>"
    "<acpi><table type='slic'>/srv/slic</table></acpi>"
)
_FW_CFG = (
    "<sysinfo type='fwcfg'><entry name='opt/a' file='/srv/node.ign'/>"
    "<entry name='opt/b'>text</entry></sysinfo>"
)
_ORIGINALS = (
    *("/srv/vmlinuz", "/srv/initrd", "/srv/shim.efi", "/srv/board.dtb", "/srv/slic"),
    "/srv/node.ign",
)


def _booting(**more: Any) -> str:
    return plain(os=_BOOTED, extra=_FW_CFG, **more)


def test_each_boot_file_is_a_copy_of_the_domains_own() -> None:
    found = read(enrol(_booting()))
    copies = [copy_of(PATHS, xmls.UUID, path) for path in _ORIGINALS]
    assert sorted((*found.boot_files, *found.fw_cfg_files)) == sorted(copies)
    assert sorted((note.path, note.original) for note in found.copied) == sorted(
        zip(copies, _ORIGINALS, strict=True)
    )


def test_boot_files_are_given_back_as_they_were() -> None:
    before = _booting()
    assert canonical(unenrol(enrol(before))) == canonical(before.encode())
    assert canonical(enrol(enrol(before))) == canonical(enrol(before))


def test_a_comment_in_a_boot_files_path_is_no_part_of_it_and_stays() -> None:
    before = _booting().replace("/srv/vmlinuz", "/srv/<!-- the old one -->vmlinuz")
    enrolled = enrol(before)
    assert read(enrolled).boot_files[0] == copy_of(PATHS, xmls.UUID, "/srv/vmlinuz")
    assert read(unenrol(enrolled)).boot_files == read(before.encode()).boot_files
    assert b"<!-- the old one -->" in unenrol(enrolled)


def test_a_kernel_that_the_admin_changed_is_copied_instead() -> None:
    edited = etree.fromstring(enrol(_booting()))
    kernel = edited.find("os/kernel")
    assert kernel is not None
    kernel.text = "/srv/vmlinuz-6.12"
    again = read(enrol(etree.tostring(edited)))
    assert again.boot_files[0] == copy_of(PATHS, xmls.UUID, "/srv/vmlinuz-6.12")
    assert "/srv/vmlinuz" not in [note.original for note in again.copied]


def test_a_clone_gets_copies_of_its_own() -> None:
    cloned = enrol(_booting()).replace(xmls.UUID.encode(), xmls.OTHER.encode())
    path = copy_of(PATHS, xmls.UUID, "/srv/vmlinuz").encode()
    assert read(enrol(cloned)).boot_files[0] == copy_of(PATHS, xmls.OTHER, "/srv/vmlinuz")
    assert path not in enrol(cloned)


def test_a_copy_whose_note_is_lost_is_no_original() -> None:
    root = etree.fromstring(enrol(_booting()))
    for note in root.findall("metadata/*/*"):
        note.getparent().remove(note)  # type: ignore[union-attr]
    assert read(enrol(etree.tostring(root))).copied == ()


def test_what_grew_since_its_enrolment_still_comes_out() -> None:
    grown = enrol(plain()).replace(b"</devices>", b"<x/>" * 2 * TAG_LIMIT + b"</devices>")
    with pytest.raises(DomainError, match="more than"):
        enrol(grown)
    assert not is_enrolled(unenrol(grown).replace(b"<x/>", b""), PATHS)

# SPDX-License-Identifier: GPL-2.0-or-later
"""What is read of a domain's XML: each field by an example, and no harm by hostile XML."""

from __future__ import annotations

import typing
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import xmls
from conftest import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from virtwarden.domain import model as domain_module
from virtwarden.domain import xpath
from virtwarden.domain.addresses import PciAddress, UsbAddress
from virtwarden.domain.model import (
    XML_LIMIT_BYTES,
    Assigned,
    Backing,
    Copied,
    Device,
    Disk,
    Display,
    Domain,
    Filesystem,
    Label,
    Line,
    Listen,
    Memory,
    Nic,
    ScsiDevice,
    Spelled,
    Volume,
    VolumeHost,
    from_tree,
    parse,
    read,
)
from virtwarden.errors import DomainError

QEMU = "xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'"
WARDEN = "xmlns:warden='https://virt-warden.org/xmlns/libvirt/domain/1.0'"
OFF = "<seclabel model='dac' relabel='no'/>"


def devices(inside: str) -> str:
    return f"<domain><devices>{inside}</devices></domain>"


def scsi(inside: str) -> str:
    return f"<hostdev><source>{inside}</source></hostdev>"


def os(inside: str) -> str:
    return f"<domain><os>{inside}</os></domain>"


def noted(inside: str) -> str:
    """The notes of an enrolment about a disk."""
    return (
        f"<domain {WARDEN}><metadata><warden:enrolment><warden:disk target='vda'>{inside}"
        "</warden:disk></warden:enrolment></metadata></domain>"
    )


# Each field, the XML that shows it, and what is to come out.
EXAMPLES: list[tuple[type, str, str, Any]] = [
    (Domain, "backs_memory", "<domain><memoryBacking/></domain>", True),
    (
        Domain,
        "backs_memory",
        "<domain><cpu><numa><cell memAccess='shared'/></numa></cpu></domain>",
        True,
    ),
    (Assigned, "kind", "<hostdev type='usb'/>", "usb"),
    (Assigned, "name", "<hostdev><source name='iqn.a'/></hostdev>", "iqn.a"),
    (Assigned, "name", "<hostdev><source wwpn='naa.5'/></hostdev>", "naa.5"),
    *[
        (Assigned, name, f"<hostdev><source><{tag} {attribute}='1'/></source></hostdev>", "1")
        for name, tag, attribute in [
            ("adapter", "adapter", "name"),
            ("vendor", "vendor", "id"),
            ("product", "product", "id"),
            *[
                (name, "address", name)
                for name in [
                    "uuid",
                    "domain",
                    "bus",
                    "slot",
                    "function",
                    "device",
                    "target",
                    "unit",
                ]
            ],
        ]
    ],
    (Device, "assigned", "<hostdev type='pci'/>", (Assigned(kind="pci"),)),
    (Device, "assigned", "<disk type='nvme'/>", (Assigned(kind="nvme"),)),
    (
        Device,
        "assigned",
        "<disk><backingStore type='file'><backingStore type='nvme'/></backingStore></disk>",
        (Assigned(kind="nvme"),),
    ),
    (
        Device,
        "lines",
        "<serial type='tcp'><source service='1'/></serial>",
        (Line(kind="tcp", service="1"),),
    ),
    (
        Device,
        "lines",
        "<rng><backend type='udp'><source service='1'/></backend></rng>",
        (Line(kind="udp", service="1"),),
    ),
    *[
        (Domain, "programs", devices(f"<a><{tag} path='/p'/></a>"), ("/p",))
        for tag in ("script", "downscript", "binary")
    ],
    (Domain, "programs", "<domain><bootloader>/p</bootloader></domain>", ("/p",)),
    *[
        (Domain, "vhost_user_sockets", devices(xml), ("/s",))
        for xml in (
            "<disk type='vhostuser'><source path='/s'/></disk>",
            "<interface type='vhostuser'><source path='/s'/></interface>",
            "<filesystem><source socket='/s'/></filesystem>",
        )
    ],
    (Domain, "pipes", devices("<a type='pipe'><source path='/p'/></a>"), ("/p",)),
    (
        Domain,
        "pipes",
        devices("<rng><backend type='pipe'><source path='/p'/></backend></rng>"),
        ("/p",),
    ),
    (Domain, "speaks_tcp", devices("<rng><backend type='tcp'/></rng>"), True),
    (Domain, "speaks_udp", devices("<rng><backend type='udp'/></rng>"), True),
    *[
        (Domain, "unix_sockets", devices(xml), ("/s",))
        for xml in (
            "<serial type='unix'><source path='/s'/></serial>",
            "<rng><backend type='unix'><source path='/s'/></backend></rng>",
            "<tpm><backend type='external'><source path='/s'/></backend></tpm>",
            "<shmem><server path='/s'/></shmem>",
            "<audio serverName='/s'/>",
            "<disk><source><host socket='/s'/></source></disk>",
            "<disk><source><reservations><source path='/s'/></reservations></source></disk>",
        )
    ],
    (
        Domain,
        "unix_sockets",
        os("<nvram><source><host socket='/s'/></source></nvram>"),
        ("/s",),
    ),
    (Label, "kind", "<seclabel type='static'/>", "static"),
    (Label, "model", "<seclabel model='dac'/>", "dac"),
    (Label, "relabel", "<seclabel relabel='yes'/>", "yes"),
    (Label, "label", "<seclabel><label>a:b</label></seclabel>", "a:b"),
    (Label, "image_label", "<seclabel><imagelabel>a:b</imagelabel></seclabel>", "a:b"),
    (Backing, "kind", "<backingStore type='block'/>", "block"),
    (Backing, "format", "<backingStore><format type='raw'/></backingStore>", "raw"),
    (Backing, "path", "<backingStore><source file='/a'/></backingStore>", "/a"),
    (Backing, "path", "<backingStore><source dev='/dev/a'/></backingStore>", "/dev/a"),
    (
        Backing,
        "relabel_off",
        f"<backingStore><source file='/a'>{OFF}</source></backingStore>",
        True,
    ),
    (Backing, "backing", "<backingStore><backingStore/></backingStore>", Backing()),
    (Disk, "kind", "<disk type='file'/>", "file"),
    (Disk, "device", "<disk device='cdrom'/>", "cdrom"),
    (Disk, "target", "<disk><target dev='vda'/></disk>", "vda"),
    (Disk, "format", "<disk><driver type='qcow2'/></disk>", "qcow2"),
    (Disk, "path", "<disk><source file='/a'/></disk>", "/a"),
    (Disk, "path", "<disk><source dev='/dev/a'/></disk>", "/dev/a"),
    (Disk, "path", "<disk><source dir='/d'/></disk>", "/d"),
    (Disk, "pool", "<disk><source pool='p'/></disk>", "p"),
    (Disk, "volume", "<disk><source volume='v'/></disk>", "v"),
    (Disk, "has_source", "<disk><source/></disk>", True),
    (Disk, "readonly", "<disk><readonly/></disk>", True),
    (Disk, "shareable", "<disk><shareable/></disk>", True),
    (Disk, "transient", "<disk><transient/></disk>", True),
    (Disk, "may_be_missing", "<disk><source startupPolicy='optional'/></disk>", True),
    (Disk, "may_be_missing", "<disk><source startupPolicy='requisite'/></disk>", True),
    (Disk, "relabel_off", f"<disk><source>{OFF}</source></disk>", True),
    (Disk, "backing", "<disk><backingStore type='file'/></disk>", Backing(kind="file")),
    (Disk, "mirror", "<disk><mirror type='file'/></disk>", Backing(kind="file")),
    (Spelled, "image", "<backing of='/a'/>", "/a"),
    (Spelled, "base", "<backing base='/b'/>", "/b"),
    (Nic, "kind", "<interface type='bridge'/>", "bridge"),
    (Nic, "mac", "<interface><mac address='52:54:00:00:00:01'/></interface>", "52:54:00:00:00:01"),
    (Disk, "discard", "<disk><driver discard='unmap'/></disk>", "unmap"),
    (Disk, "encryption", "<disk><source><encryption format='luks'/></source></disk>", "luks"),
    (Disk, "encryption", "<disk><encryption format='luks'/></disk>", "luks"),
    (
        Disk,
        "secret_uuid",
        f"<disk><source><encryption><secret uuid='{xmls.UUID}'/></encryption></source></disk>",
        xmls.UUID,
    ),
    (
        Disk,
        "secret_uuid",
        f"<disk><encryption><secret uuid='{xmls.UUID}'/></encryption></disk>",
        xmls.UUID,
    ),
    (
        Disk,
        "secret_usage",
        "<disk><source><encryption><secret usage='/a'/></encryption></source></disk>",
        "/a",
    ),
    (
        Disk,
        "secret_usage",
        "<disk><encryption><secret usage='/a'/></encryption></disk>",
        "/a",
    ),
    (Nic, "bridge", "<interface><source bridge='br0'/></interface>", "br0"),
    (Nic, "network", "<interface><source network='lan'/></interface>", "lan"),
    (Nic, "tap", "<interface><target dev='vnet0'/></interface>", "vnet0"),
    (Nic, "managed", "<interface><target managed='no'/></interface>", "no"),
    (Nic, "queues", "<interface><driver queues='2'/></interface>", "2"),
    (Nic, "endpoint", "<interface><source path='/run/vhost.sock'/></interface>", "/run/vhost.sock"),
    (
        Nic,
        "endpoint",
        "<interface><source dev='/dev/vhost-vdpa-0'/></interface>",
        "/dev/vhost-vdpa-0",
    ),
    (Nic, "mode", "<interface><source mode='server'/></interface>", "server"),
    (Nic, "address", "<interface><source address='192.0.2.7'/></interface>", "192.0.2.7"),
    (Nic, "port", "<interface><source port='5558'/></interface>", "5558"),
    (
        Nic,
        "local_address",
        "<interface><source><local address='192.0.2.8'/></source></interface>",
        "192.0.2.8",
    ),
    (Nic, "local_port", "<interface><source><local port='5559'/></source></interface>", "5559"),
    (PciAddress, "domain", "<address domain='0x0001'/>", "0x0001"),
    (PciAddress, "bus", "<address bus='0x02'/>", "0x02"),
    (PciAddress, "slot", "<address slot='0x03'/>", "0x03"),
    (PciAddress, "function", "<address function='0x4'/>", "0x4"),
    (UsbAddress, "bus", "<address bus='14'/>", "14"),
    (UsbAddress, "device", "<address device='6'/>", "6"),
    (
        Domain,
        "pci_devices",
        devices("<hostdev type='pci'><source><address bus='0x02'/></source></hostdev>"),
        (PciAddress(bus="0x02"),),
    ),
    (
        Domain,
        "pci_devices",
        devices("<interface type='hostdev'><source><address bus='0x02'/></source></interface>"),
        (PciAddress(bus="0x02"),),
    ),
    (
        Domain,
        "pci_devices",
        devices("<disk><source type='pci'><address bus='0x02'/></source></disk>"),
        (PciAddress(bus="0x02"),),
    ),
    (
        Domain,
        "usb_devices",
        devices("<hostdev type='usb'><source><address bus='1'/></source></hostdev>"),
        (UsbAddress(bus="1"),),
    ),
    (
        Domain,
        "mediated_devices",
        devices("<hostdev type='mdev'><source><address uuid='a'/></source></hostdev>"),
        ("a",),
    ),
    (
        Domain,
        "scsi_hosts",
        devices("<hostdev type='scsi_host'><source wwpn='naa.5'/></hostdev>"),
        ("naa.5",),
    ),
    (Domain, "vsocks", devices("<vsock><cid address='4'/></vsock>"), ("4",)),
    (Domain, "sound_servers", devices("<audio serverName='a'/>"), ("a",)),
    (Domain, "sound_servers", devices("<audio><input serverName='a'/></audio>"), ("a",)),
    (Domain, "sound_servers", devices("<audio><input dev='hw:0'/></audio>"), ("hw:0",)),
    (
        Domain,
        "volumes",
        os("<nvram><source protocol='nbd'/></nvram>"),
        (Volume(protocol="nbd"),),
    ),
    (Domain, "speaks_tcp", os("<nvram><source protocol='nbd'/></nvram>"), True),
    (Domain, "speaks_tcp", devices("<rng><backend type='tcp'/></rng>"), True),
    (Domain, "speaks_udp", os("<nvram><source protocol='nbd'/></nvram>"), True),
    (VolumeHost, "name", "<host name='a.example'/>", "a.example"),
    (VolumeHost, "port", "<host port='10809'/>", "10809"),
    (VolumeHost, "transport", "<host transport='unix'/>", "unix"),
    (Volume, "protocol", "<source protocol='nbd'/>", "nbd"),
    (Volume, "hosts", "<source><host name='a'/></source>", (VolumeHost(name="a"),)),
    (Line, "mode", "<source mode='bind'/>", "bind"),
    (Line, "host", "<source host='::1'/>", "::1"),
    (Line, "service", "<source service='4555'/>", "4555"),
    (Listen, "kind", "<listen type='socket'/>", "socket"),
    (Listen, "address", "<listen address='::1'/>", "::1"),
    (Listen, "socket", "<listen socket='/run/a'/>", "/run/a"),
    (Display, "kind", "<graphics type='vnc'/>", "vnc"),
    (Display, "port", "<graphics port='5900'/>", "5900"),
    (Display, "tls_port", "<graphics tlsPort='5901'/>", "5901"),
    (Display, "websocket", "<graphics websocket='5700'/>", "5700"),
    (Display, "address", "<graphics listen='::1'/>", "::1"),
    (Display, "socket", "<graphics socket='/run/a'/>", "/run/a"),
    (Display, "draws_by_gl", "<graphics><gl enable='yes'/></graphics>", True),
    (Display, "listens", "<graphics><listen type='none'/></graphics>", (Listen(kind="none"),)),
    (Filesystem, "target", "<filesystem><target dir='tag'/></filesystem>", "tag"),
    (Filesystem, "driver", "<filesystem><driver type='virtiofs'/></filesystem>", "virtiofs"),
    (Filesystem, "socket", "<filesystem><source socket='/s'/></filesystem>", "/s"),
    (Filesystem, "served_as", "<f><idmap><uid target='7'/><gid target='8'/></idmap></f>", "7"),
    (Filesystem, "directory", "<filesystem><source dir='/srv'/></filesystem>", "/srv"),
    (Memory, "path", "<memory><source><path>/p</path></source></memory>", "/p"),
    (Memory, "readonly", "<memory><target><readonly/></target></memory>", True),
    (Device, "tag", "<hostdev/>", "hostdev"),
    (Device, "variant", "<serial type='tcp'/>", "tcp"),
    (Device, "variant", "<rng><backend model='egd' type='unix'/></rng>", "egd"),
    (Device, "variant", "<tpm model='tpm-crb'><backend type='emulator'/></tpm>", "emulator"),
    (Device, "variant", "<smartcard mode='host'/>", "host"),
    (Device, "variant", "<smartcard mode='passthrough' type='spicevmc'/>", "spicevmc"),
    (Device, "name", "<shmem name='shared'/>", "shared"),
    (Device, "connects", "<serial><source mode='connect'/></serial>", True),
    (Device, "paths", "<serial><source path='/run/a'/></serial>", ("/run/a",)),
    (Domain, "id", "<domain id='7'/>", "7"),
    (
        Domain,
        "memory_source",
        "<domain><memoryBacking><source type='file'/></memoryBacking></domain>",
        "file",
    ),
    (
        Domain,
        "huge_pages",
        "<domain><memoryBacking><hugepages/></memoryBacking></domain>",
        True,
    ),
    (
        Domain,
        "on_crash",
        "<domain><on_crash>coredump-destroy</on_crash></domain>",
        "coredump-destroy",
    ),
    (
        Domain,
        "watchdogs",
        "<domain><devices><watchdog action='dump'/></devices></domain>",
        ("dump",),
    ),
    (Domain, "name", "<domain><name>web01</name></domain>", "web01"),
    (Domain, "uuid", f"<domain><uuid>{xmls.UUID}</uuid></domain>", xmls.UUID),
    (Domain, "arch", os("<type arch='x86_64'>hvm</type>"), "x86_64"),
    (Domain, "emulator", devices("<emulator>/q</emulator>"), "/q"),
    (Domain, "labels", "<domain><seclabel model='dac'/></domain>", (Label(model="dac"),)),
    (Domain, "disks", devices("<disk/>"), (Disk(),)),
    (Domain, "nics", devices("<interface/>"), (Nic(),)),
    (Domain, "displays", devices("<graphics/>"), (Display(),)),
    (Domain, "filesystems", devices("<filesystem/>"), (Filesystem(),)),
    (
        Domain,
        "memory_files",
        devices("<memory/><memory><source><path>/p</path></source></memory>"),
        (Memory(path="/p"),),
    ),
    (
        Domain,
        "devices",
        devices("<emulator>/q</emulator><tpm/>"),
        (Device(tag="tpm"),),
    ),
    (
        Domain,
        "volumes",
        devices("<disk><backingStore><source protocol='rbd'/></backingStore></disk>"),
        (Volume(protocol="rbd"),),
    ),
    (
        Domain,
        "lines",
        devices("<rng><backend type='tcp'><source service='1'/></backend></rng>"),
        (Line(kind="tcp", service="1"),),
    ),
    (Domain, "nvram", os("<nvram template='/t'>/n</nvram>"), "/n"),
    (
        Domain,
        "nvram",
        os("<nvram type='file'>\n  <source file='/n'/>\n</nvram>"),
        "/n",
    ),
    (Domain, "nvram", os("<nvram><source dev='/dev/n'/></nvram>"), "/dev/n"),
    (Domain, "boot_files", os("<kernel>/k</kernel>"), ("/k",)),
    (Domain, "boot_files", os("<initrd>/i</initrd>"), ("/i",)),
    (Domain, "boot_files", os("<dtb>/d</dtb>"), ("/d",)),
    (Domain, "boot_files", os("<shim>/s</shim>"), ("/s",)),
    (
        Domain,
        "boot_files",
        os("<acpi><table type='slic'>/s</table></acpi>"),
        ("/s",),
    ),
    (
        Domain,
        "fw_cfg_files",
        "<domain><sysinfo type='fwcfg'><entry name='opt/a' file='/f'/></sysinfo></domain>",
        ("/f",),
    ),
    *[
        (
            Domain,
            "character_files",
            devices(f"<{tag} type='file'><source path='/l'/></{tag}>"),
            ("/l",),
        )
        for tag in ("serial", "parallel", "console", "channel")
    ],
    (
        Domain,
        "character_files",
        devices("<rng><backend><log file='/l'/></backend></rng>"),
        ("/l",),
    ),
    (Domain, "common_files", os("<loader>/l</loader>"), ("/l",)),
    (
        Domain,
        "common_files",
        os("<nvram template='/t'>/n</nvram>"),
        ("/t",),
    ),
    (
        Domain,
        "common_files",
        devices("<interface><rom file='/r'/></interface>"),
        ("/r",),
    ),
    (
        Domain,
        "common_files",
        devices("<disk><backingStore><source><config file='/c'/></source></backingStore></disk>"),
        ("/c",),
    ),
    (Domain, "other_paths", os("<shim>/s</shim>"), ("/s",)),
    (Domain, "assigns_devices", devices("<hostdev/>"), True),
    (
        Domain,
        "scsi_devices",
        devices("<hostdev type='scsi'><source><adapter name='scsi_host0'/></source></hostdev>"),
        (ScsiDevice(adapter="scsi_host0"),),
    ),
    (
        Domain,
        "scsi_devices",
        devices("<hostdev type='scsi'><source protocol='iscsi'/></hostdev>"),
        (),
    ),
    (ScsiDevice, "adapter", scsi("<adapter name='scsi_host2'/>"), "scsi_host2"),
    (ScsiDevice, "bus", scsi("<address bus='1'/>"), "1"),
    (ScsiDevice, "target", scsi("<address target='2'/>"), "2"),
    (ScsiDevice, "unit", scsi("<address unit='3'/>"), "3"),
    *[
        (Domain, "speaks_tcp", devices(device), True)
        for device in (
            "<disk type='network'><source protocol='rbd'/></disk>",
            "<serial type='tcp'/>",
            "<serial type='udp'/>",
            "<interface type='user'/>",
            "<interface type='server'/>",
            "<interface type='client'/>",
        )
    ],
    *[
        (Domain, "speaks_udp", devices(words), True)
        for words in (
            "<disk><source protocol='rbd'/></disk>",
            "<serial type='udp'/>",
            "<interface type='user'/>",
            "<interface type='mcast'/>",
        )
    ],
    *[
        (Domain, "connects", devices(words), True)
        for words in (
            "<serial><source mode='connect'/></serial>",
            "<interface><source mode='client'/></interface>",
            "<disk type='vhostuser'/>",
            "<filesystem><driver type='virtiofs'/></filesystem>",
            "<tpm><backend type='emulator'/></tpm>",
            "<disk><source><reservations managed='yes'/></source></disk>",
            "<graphics type='dbus'/>",
            "<shmem><server path='/run/a'/></shmem>",
            "<rng><backend model='egd'/></rng>",
            "<hostdev><source protocol='iscsi'/></hostdev>",
            "<interface type='user'/>",
            "<audio type='pulseaudio'/>",
        )
    ],
    (Domain, "shares_by_9p", devices("<filesystem/>"), True),
    (Domain, "uses_io_uring", devices("<disk><driver io='io_uring'/></disk>"), True),
    (Domain, "hashes_frames", devices("<interface><driver rss='on'/></interface>"), True),
    (
        Domain,
        "tpm_states",
        devices("<tpm><backend type='emulator'><source path='/t'/></backend></tpm>"),
        ("/t",),
    ),
    (
        Domain,
        "has_emulated_tpm",
        devices("<tpm><backend type='emulator'/></tpm>"),
        True,
    ),
    *[
        (Domain, "passes_arguments", f"<domain {QEMU}><qemu:{words}</domain>", True)
        for words in (
            "commandline><qemu:arg value='-s'/></qemu:commandline>",
            "override><qemu:device alias='a'/></qemu:override>",
            "capabilities><qemu:del capability='x'/></qemu:capabilities>",
        )
    ],
    (
        Domain,
        "enrolment",
        f"<domain {WARDEN}><metadata><warden:enrolment/></metadata></domain>",
        True,
    ),
    (
        Domain,
        "spelled",
        noted("<warden:backing depth='1'/><warden:backing depth='0' of='/a' base='/b'/>"),
        (Spelled(target="vda", image="/a", base="/b"),),
    ),
    (
        Domain,
        "spelled_bases",
        noted("<warden:backing depth='1' base='/c'/><warden:backing depth='0' base='/b'/>"),
        ("/c", "/b"),
    ),
    (
        Domain,
        "copied",
        f"""<domain {WARDEN}><metadata><warden:enrolment>
        <warden:copy path='/p' of='/o'/></warden:enrolment></metadata></domain>""",
        (Copied(path="/p", original="/o"),),
    ),
    (Copied, "path", "<copy path='/p'/>", "/p"),
    (Copied, "original", "<copy of='/o'/>", "/o"),
]


def declared() -> list[type]:
    """Every class of the module that is read from XML."""
    found = [value for value in vars(domain_module).values() if is_dataclass(value)]
    return typing.cast(list[type], found)


def of(kind: type, xml: str) -> Any:
    return xpath.read(etree.fromstring(xml), kind, domain_module._NAMESPACES)


@pytest.mark.parametrize(("kind", "name", "xml", "value"), EXAMPLES)
def test_a_field_is_read_from_where_it_stands(kind: type, name: str, xml: str, value: Any) -> None:
    assert getattr(of(kind, xml), name) == value


def test_no_field_is_without_an_example_that_shows_it() -> None:
    every = {(kind, item.name) for kind in declared() for item in fields(kind)}  # type: ignore[arg-type]
    shown = {(kind, name) for kind, name, _, value in EXAMPLES if value}
    # By the examples of Domain.spelled and Domain.lines: they stand in the parent.
    shown |= {(Spelled, "target"), (Line, "kind")}
    assert every - shown == set()


def test_every_part_of_every_xpath_is_needed_by_an_example() -> None:
    """An XPath with alternatives has an example for each: take one out, and some value changes."""
    for kind in declared():
        for item in fields(kind):  # type: ignore[arg-type]
            (path,) = item.metadata.values()
            parts = path.split(" | ")
            if len(parts) == 1 or "local-name()" in path:
                continue
            for part in parts:
                rest = etree.XPath(
                    " | ".join(p for p in parts if p != part),
                    namespaces=dict(domain_module._NAMESPACES),
                )
                whole = etree.XPath(path, namespaces=dict(domain_module._NAMESPACES))
                examples = [xml for k, n, xml, _ in EXAMPLES if (k, n) == (kind, item.name)]
                trees = [etree.fromstring(xml) for xml in examples]
                assert any(rest(tree) != whole(tree) for tree in trees), (kind, item.name, part)


@pytest.mark.parametrize("kind", declared())
def test_what_is_not_there_is_the_default(kind: type) -> None:
    found = of(kind, "<nothing/>")
    for item in fields(kind):  # type: ignore[arg-type]
        if (kind, item.name) != (Device, "tag"):
            assert getattr(found, item.name) == item.default


def test_nothing_is_trimmed_since_another_name_is_another_file() -> None:
    disk = of(Disk, "<disk><source file=' /a '/></disk>")
    assert disk.path == " /a "
    assert of(Domain, "<domain><name> web01 </name></domain>").name == " web01 "


def test_a_text_is_read_whole_whatever_comments_stand_in_it() -> None:
    assert of(Domain, "<domain><name>we<!-- no -->b<?no?>01</name></domain>").name == "web01"


def test_only_what_libvirt_says_in_no_namespace_counts() -> None:
    foreign = "<domain xmlns:x='urn:x'><x:name>evil</x:name><name>web01</name></domain>"
    assert of(Domain, foreign).name == "web01"
    assert not of(
        Domain, "<domain xmlns:qemu='urn:x'><qemu:commandline><a/></qemu:commandline></domain>"
    ).passes_arguments


# Layers


def layered(*kinds: str) -> Disk:
    below = "<backingStore/>"
    for kind in reversed(kinds):
        below = xmls.base(f"/{kind}", kind, below)
    return typing.cast(Disk, of(Disk, xmls.disk("/a", form="qcow2", inside=below)))


def test_the_layers_of_a_disk_come_from_the_top() -> None:
    assert [layer.path for layer in layered("qcow2", "raw").layers] == ["/qcow2", "/raw"]
    assert layered().layers == ()


@pytest.mark.parametrize(
    ("xml", "spelled_out"),
    [
        ("<disk><source file='/a'/></disk>", True),
        ("<disk><driver type='raw'/><source file='/a'/></disk>", True),
        ("<disk><driver type='qcow2'/><source file='/a'/></disk>", False),
        ("<disk><driver type='qcow2'/><source file='/a'/><backingStore/></disk>", True),
        (xmls.disk(form="qcow2", inside=xmls.base("/b", "raw", "")), True),
        (xmls.disk(form="qcow2", inside=xmls.base("/b", "qcow2", "")), False),
        ("<disk><driver type='qcow2'/><mirror><backingStore/></mirror></disk>", False),
    ],
)
def test_a_chain_is_spelled_out_when_the_xml_says_where_it_ends(
    xml: str, spelled_out: bool
) -> None:
    assert of(Disk, xml).is_spelled_out is spelled_out


# The UUID


@pytest.mark.parametrize(
    "written",
    [
        xmls.UUID.upper(),
        xmls.UUID.replace("-", ""),
        f"\n  {xmls.UUID}\n",
        "6F1C1A4E00004000-8000-000000000001",
    ],
)
def test_a_uuid_is_the_one_that_libvirt_makes_of_it(written: str) -> None:
    assert read(xmls.domain(uuid=written).encode()).uuid == xmls.UUID


@pytest.mark.parametrize(
    "written",
    [
        "",
        "../../etc",
        "6f1c1a4e",
        f"{xmls.UUID}0",
        f"urn:uuid:{xmls.UUID}",
        "g" * 32,
        "\u0660" * 32,
    ],
)
def test_what_is_no_uuid_is_refused(written: str) -> None:
    with pytest.raises(DomainError, match="no valid <uuid>"):
        read(xmls.domain(uuid=written).encode())


def test_a_domain_without_a_name_is_refused() -> None:
    with pytest.raises(DomainError, match="no <name>"):
        read(xmls.domain(name="").encode())


# Hostile XML

LAUGHS = "<!DOCTYPE d [<!ENTITY a 'ha'>" + "".join(
    f"<!ENTITY {chr(98 + n)} '{f'&{chr(97 + n)};' * 10}'>" for n in range(20)
)


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        (b"", "cannot be read"),
        (b"\0", "cannot be read"),
        (b"no xml", "cannot be read"),
        (b"<domain>", "cannot be read"),
        (b"<domain/><domain/>", "cannot be read"),
        (b"<domain a='1' a='2'/>", "cannot be read"),
        (b"<domain>&a;</domain>", "cannot be read"),
        (b"<domain>&#0;</domain>", "cannot be read"),
        (b"<domain>\xff</domain>", "cannot be read"),
        (b"<?xml version='1.0' encoding='no-such'?><domain/>", "cannot be read"),
        (b"<x:domain/>", "cannot be read"),
        (b"<network/>", "that of a <network>"),
        (b"<domain xmlns='urn:x'/>", "that of a <{urn:x}domain>"),
        (b"<!DOCTYPE domain><domain/>", "document type"),
        (b"<!DOCTYPE domain SYSTEM 'http://127.0.0.1:1/x'><domain/>", "document type"),
        (b"<!DOCTYPE domain SYSTEM 'file:///etc/passwd'><domain/>", "document type"),
        (b"<!DOCTYPE d [<!ENTITY a 'x'>]><domain>&a;</domain>", "document type"),
        (
            b"<!DOCTYPE d [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><domain>&a;</domain>",
            "document type",
        ),
        (
            b"<!DOCTYPE d [<!ENTITY % a SYSTEM 'file:///etc/passwd'> %a;]><domain/>",
            "document type",
        ),
        (f"{LAUGHS}]><domain><name>&u;</name></domain>".encode(), "entity reference loop"),
        (f"{LAUGHS}]><domain id='&u;'/>".encode(), "entity reference loop"),
        (b"<domain>" + b"<a>" * 9_000 + b"</a>" * 9_000 + b"</domain>", "cannot be read"),
        (b"<domain>" + b"<a/>" * 20_000 + b"</domain>", "more than 10000 elements"),
        (b"<domain " + b" ".join(b"a%d='1'" % n for n in range(300_000)) + b"/>", "attributes"),
        (b"<domain>" + b" " * XML_LIMIT_BYTES + b"</domain>", "larger than"),
        (b"<domain>" + b"<a/>" * (50 * 1024 * 1024 // 4) + b"</domain>", "larger than"),
    ],
    ids=lambda value: value[:40] if isinstance(value, bytes) else None,
)
def test_hostile_xml_is_refused_in_one_line(xml: bytes, reason: str) -> None:
    with pytest.raises(DomainError) as refused:
        read(xml)
    assert reason in str(refused.value)
    assert str(refused.value).isprintable()


def test_no_file_is_opened_for_an_entity(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Spy(etree.Resolver):
        def resolve(self, url: str, public_id: str, context: Any) -> None:
            asked.append(url)

    original = etree.XMLParser

    def watched(**options: Any) -> Any:
        parser = original(**options)
        parser.resolvers.add(Spy())
        return parser

    monkeypatch.setattr(etree, "XMLParser", watched)
    with pytest.raises(DomainError):
        parse(
            b"<!DOCTYPE d SYSTEM 'file:///a' [<!ENTITY % b SYSTEM 'file:///b'> %b;"
            b"<!ENTITY c SYSTEM 'file:///c'>]><domain>&c;</domain>"
        )
    assert asked == []


@given(st.binary(max_size=200))
def test_whatever_bytes_come_it_is_a_domain_or_a_refusal(garbage: bytes) -> None:
    for xml in (garbage, b"<domain>" + garbage + b"</domain>"):
        with suppress(DomainError):
            read(xml)


ELEMENTS = "domain name uuid os nvram source devices disk backingStore interface graphics listen"
ATTRIBUTES = "type model relabel file dev path address id mode"
texts = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=5)


def elements(inside: st.SearchStrategy[list[etree._Element]]) -> st.SearchStrategy[Any]:
    attributes = st.dictionaries(st.sampled_from(ATTRIBUTES.split()), texts, max_size=3)
    return st.builds(element, st.sampled_from(ELEMENTS.split()), attributes, texts, inside)


def deeper(inside: st.SearchStrategy[etree._Element]) -> st.SearchStrategy[etree._Element]:
    return elements(st.lists(inside, max_size=4))


def element(
    tag: str, attributes: dict[str, str], text: str, inside: list[etree._Element]
) -> etree._Element:
    made = etree.Element(tag, attributes)
    made.text = text
    made.extend(inside)
    return made


@settings(max_examples=30)
@given(st.lists(st.recursive(elements(st.just([])), deeper, max_leaves=15)))
def test_whatever_stands_where_it_is_read_without_an_error(inside: list[etree._Element]) -> None:
    root = etree.Element("domain")
    root.extend(inside)
    assert isinstance(from_tree(root), Domain)


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("xml/*.xml")), ids=lambda file: file.name)
def test_what_libvirt_writes_is_read(file: Any) -> None:
    found = read(file.read_bytes())
    assert found.name == file.name.split(".")[0]
    assert found.enrolment
    assert found.id

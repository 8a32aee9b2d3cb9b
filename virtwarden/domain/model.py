# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain as libvirt's XML describes it: each field is declared with its XPath.

Reference: https://libvirt.org/formatdomain.html
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, fields, replace
from typing import Any

from lxml import etree

from virtwarden.domain import pools, xpath
from virtwarden.domain.addresses import PciAddress, UsbAddress
from virtwarden.domain.hostpaths import PATHS_BESIDE_DEVICES, PATHS_OF_A_DEVICE
from virtwarden.domain.xpath import child, children, present, text, texts
from virtwarden.errors import DomainError

XML_LIMIT_BYTES = 4 * 1024 * 1024
# libxml2 compares each attribute of an element with all the others, and each node that an XPath
# finds with those that it found before. The largest domain in libvirt's own tests has 350 elements.
_ATTRIBUTE_LIMIT = 2000
TAG_LIMIT = 20_000
WARDEN_NAMESPACE = "https://virt-warden.org/xmlns/libvirt/domain/1.0"
_NAMESPACES = (
    ("qemu", "http://libvirt.org/schemas/domain/qemu/1.0"),
    ("warden", WARDEN_NAMESPACE),
)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_RELABEL_OFF = "seclabel[@model='dac' and @relabel='no']"


@dataclass(frozen=True)
class Label:
    """`<seclabel>`: what a security driver does with this domain."""

    kind: str = text("@type")
    model: str = text("@model")
    relabel: str = text("@relabel")
    label: str = text("label")
    image_label: str = text("imagelabel")


@dataclass(frozen=True)
class Backing:
    """`<backingStore>`: one layer below an image; a kind of "" says that nothing is below."""

    kind: str = text("@type")
    format: str = text("format/@type")
    path: str = text("source/@file | source/@dev")
    relabel_off: bool = present(f"source/{_RELABEL_OFF}")
    backing: Backing | None = child("backingStore")


@dataclass(frozen=True)
class Disk:
    """`<disk>`: a disk, CD-ROM or floppy drive and what is in it.

    A pool's volume whose file is known is a disk of that file.
    """

    kind: str = text("@type")
    device: str = text("@device")
    target: str = text("target/@dev")
    format: str = text("driver/@type")
    path: str = text("source/@file | source/@dev | source/@dir")
    pool: str = text("source/@pool")
    volume: str = text("source/@volume")
    has_source: bool = present("source")
    readonly: bool = present("readonly")
    shareable: bool = present("shareable")
    may_be_missing: bool = present(
        "source[@startupPolicy='optional' or @startupPolicy='requisite']"
    )
    relabel_off: bool = present(f"source/{_RELABEL_OFF}")
    discard: str = text("driver/@discard")
    transient: bool = present("transient")
    encryption: str = text("source/encryption/@format | encryption/@format")
    secret_uuid: str = text("source/encryption/secret/@uuid | encryption/secret/@uuid")
    secret_usage: str = text("source/encryption/secret/@usage | encryption/secret/@usage")
    backing: Backing | None = child("backingStore")
    mirror: Backing | None = child("mirror")

    @property
    def layers(self) -> tuple[Backing, ...]:
        """The images below the disk's own, from the top, as far as the XML names them."""
        found: list[Backing] = []
        layer = self.backing
        while layer is not None and layer.kind:
            found.append(layer)
            layer = layer.backing
        return tuple(found)

    @property
    def is_spelled_out(self) -> bool:
        """Whether the XML says where the chain ends, so that libvirt reads no image's header."""
        if self.format in ("", "raw"):
            return True
        layer = self.backing
        while layer is not None and layer.kind:
            if layer.format == "raw":
                return True
            layer = layer.backing
        return layer is not None


def stamp(path: str) -> str:
    """What stands for an image's path in the notes of enrolment.

    An editor that replaces a path throughout the XML does not replace it there.
    """
    return hashlib.sha256(path.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Spelled:
    """A note of enrolment: on which image a disk's image, known by its stamp, is based."""

    target: str = text("../@target")
    image: str = text("@of")
    base: str = text("@base")


@dataclass(frozen=True)
class Copied:
    """A note of enrolment: the XML names a copy instead of this boot file."""

    path: str = text("@path")
    original: str = text("@of")


@dataclass(frozen=True)
class Nic:
    """`<interface>`: a network card; `tap` is known once libvirt has made it."""

    kind: str = text("@type")
    mac: str = text("mac/@address")
    bridge: str = text("source/@bridge")
    network: str = text("source/@network")
    tap: str = text("target/@dev")
    managed: str = text("target/@managed")
    queues: str = text("driver/@queues")
    endpoint: str = text("source/@path | source/@dev")
    mode: str = text("source/@mode")
    address: str = text("source/@address")
    port: str = text("source/@port")
    local_address: str = text("source/local/@address")
    local_port: str = text("source/local/@port")

    @property
    def queue_count(self) -> int:
        """How many queues QEMU gets of its tap."""
        return max(int(self.queues or 1), 1)

    @property
    def is_kept(self) -> bool:
        """Whether its tap is somebody else's than libvirt's, and stays when the domain stops."""
        return self.managed == "no"


@dataclass(frozen=True)
class VolumeHost:
    """`<host>`: a server of a volume on the network."""

    name: str = text("@name")
    port: str = text("@port")
    transport: str = text("@transport")


@dataclass(frozen=True)
class Volume:
    """`<source protocol='…'>`: a volume on the network, of a disk, a base or a SCSI device."""

    protocol: str = text("@protocol")
    hosts: tuple[VolumeHost, ...] = children("host")


@dataclass(frozen=True)
class Line:
    """`<source service='…'>`: a serial port, or another line of characters, over TCP or UDP."""

    kind: str = text("../@type")
    mode: str = text("@mode")
    host: str = text("@host")
    service: str = text("@service")


@dataclass(frozen=True)
class Listen:
    """`<listen>`: the address of a display."""

    kind: str = text("@type")
    address: str = text("@address")
    socket: str = text("@socket")


@dataclass(frozen=True)
class Display:
    """`<graphics>`: a display; ports that libvirt chooses are known at the start."""

    kind: str = text("@type")
    port: str = text("@port")
    tls_port: str = text("@tlsPort")
    websocket: str = text("@websocket")
    address: str = text("@listen")
    socket: str = text("@socket")
    draws_by_gl: bool = present("gl[@enable='yes']")
    listens: tuple[Listen, ...] = children("listen")

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it listens: `unix` for a socket, an empty string for what libvirt will choose."""
        if not self.listens:
            return ("unix" if self.socket else self.address,)
        return tuple(
            "unix" if listen.kind == "socket" else listen.address
            for listen in self.listens
            if listen.kind != "none"
        )

    @property
    def ports(self) -> tuple[int, ...]:
        """Its TCP ports; 0 for one that libvirt has not chosen yet."""
        written = (self.port, self.tls_port, self.websocket)
        return tuple(int(port) for port in written if port.isdecimal())

    def viewers_port(self, *, tls: bool) -> int:
        """The TCP port to which viewers connect, with TLS or without; 0 for none.

        A SPICE display without a port for TLS has TLS at its only one: the wrapper sees to it.
        """
        ports = (self.tls_port, self.port) if tls else (self.port, self.tls_port)
        return next((int(port) for port in ports if port.isdecimal() and int(port)), 0)


@dataclass(frozen=True)
class Filesystem:
    """`<filesystem>`: a directory of the host that the guest sees."""

    target: str = text("target/@dir")
    directory: str = text("source/@dir")
    driver: str = text("driver/@type")
    socket: str = text("source/@socket")
    served_as: str = text("idmap/uid/@target")


@dataclass(frozen=True)
class Memory:
    """`<memory>` from a file: an NVDIMM, or persistent memory with virtio."""

    path: str = text("source/path")
    readonly: bool = present("target/readonly")


@dataclass(frozen=True)
class Assigned:
    """`<hostdev>`, or an image on an NVMe device: a device of the host's, by number or by name."""

    kind: str = text("@type")
    name: str = text("source/@name | source/@wwpn")
    adapter: str = text("source/adapter/@name")
    vendor: str = text("source/vendor/@id")
    product: str = text("source/product/@id")
    uuid: str = text("source/address/@uuid")
    domain: str = text("source/address/@domain")
    bus: str = text("source/address/@bus")
    slot: str = text("source/address/@slot")
    function: str = text("source/address/@function")
    device: str = text("source/address/@device")
    target: str = text("source/address/@target")
    unit: str = text("source/address/@unit")


@dataclass(frozen=True)
class Device:
    """Anything in `<devices>` except the emulator: its kind, and what may be a host's path in it.

    `variant` tells the harmless devices of a kind from the others.
    """

    tag: str = text("local-name()")
    variant: str = text(
        "self::rng/backend/@model | self::tpm/backend/@type | self::smartcard[not(@type)]/@mode"
        " | self::*[not(self::rng or self::tpm)]/@type"
    )
    name: str = text("@name")
    connects: bool = present("source[@mode='connect']")
    paths: tuple[str, ...] = texts(PATHS_OF_A_DEVICE)
    assigned: tuple[Assigned, ...] = children(
        "self::hostdev | self::disk[@type='nvme']"
        " | self::disk/descendant::backingStore[@type='nvme']"
    )
    lines: tuple[Line, ...] = children("source[@service] | backend/source[@service]")


@dataclass(frozen=True)
class ScsiDevice:
    """`<hostdev type='scsi'>` of an adapter of the host: which of its devices the guest gets."""

    adapter: str = text("source/adapter/@name")
    bus: str = text("source/address/@bus")
    target: str = text("source/address/@target")
    unit: str = text("source/address/@unit")


@dataclass(frozen=True)
class Domain:
    """`<domain>`: what the guards look at."""

    id: str = text("@id")
    name: str = text("name")
    uuid: str = text("uuid")
    arch: str = text("os/type/@arch")
    emulator: str = text("devices/emulator")
    labels: tuple[Label, ...] = children("seclabel")
    disks: tuple[Disk, ...] = children("devices/disk")
    nics: tuple[Nic, ...] = children("devices/interface")
    displays: tuple[Display, ...] = children("devices/graphics")
    filesystems: tuple[Filesystem, ...] = children("devices/filesystem")
    memory_files: tuple[Memory, ...] = children("devices/memory[source/path]")
    devices: tuple[Device, ...] = children("devices/*[not(self::emulator)]")
    volumes: tuple[Volume, ...] = children(
        "devices//source[@protocol] | os/nvram/source[@protocol]"
    )
    lines: tuple[Line, ...] = children("devices//source[@service]")
    pci_devices: tuple[PciAddress, ...] = children(
        "devices/hostdev[@type='pci']/source/address"
        " | devices/interface[@type='hostdev']/source/address"
        " | devices/disk//source[@type='pci']/address"
    )
    usb_devices: tuple[UsbAddress, ...] = children("devices/hostdev[@type='usb']/source/address")
    mediated_devices: tuple[str, ...] = texts("devices/hostdev[@type='mdev']/source/address/@uuid")
    scsi_hosts: tuple[str, ...] = texts("devices/hostdev[@type='scsi_host']/source/@wwpn")
    vsocks: tuple[str, ...] = texts("devices/vsock/cid/@address")
    sound_servers: tuple[str, ...] = texts(
        "devices/audio/@serverName | devices/audio/*/@serverName | devices/audio/*/@dev"
    )
    nvram: str = text("os/nvram[not(source)] | os/nvram/source/@file | os/nvram/source/@dev")
    boot_files: tuple[str, ...] = texts("os/kernel | os/initrd | os/shim | os/dtb | os/acpi/table")
    fw_cfg_files: tuple[str, ...] = texts("sysinfo/entry/@file")
    character_files: tuple[str, ...] = texts(
        "devices/*[@type='file'][self::serial or self::parallel or self::console or self::channel]"
        "/source/@path | devices/*//log/@file"
    )
    assigns_devices: bool = present("devices/hostdev")
    scsi_devices: tuple[ScsiDevice, ...] = children("devices/hostdev[@type='scsi'][source/adapter]")
    speaks_tcp: bool = present(
        "devices/disk//source[@protocol] | os/nvram/source[@protocol]"
        " | devices/*[@type='tcp' or @type='udp'] | devices/rng/backend[@type='tcp' or @type='udp']"
        " | devices/interface[@type='user' or @type='server' or @type='client']"
    )
    speaks_udp: bool = present(
        "devices/disk//source[@protocol] | os/nvram/source[@protocol] | devices/*[@type='udp']"
        " | devices/rng/backend[@type='udp']"
        " | devices/interface[@type='user' or @type='mcast']"
    )
    connects: bool = present(
        "devices//*[@mode='connect'] | devices//*[@mode='client'] | devices/disk[@type='vhostuser']"
        " | devices/filesystem[driver/@type='virtiofs'] | devices/tpm/backend[@type='emulator']"
        " | devices/disk//reservations | devices/graphics[@type='dbus'] | devices/shmem/server"
        " | devices/rng/backend[@model='egd'] | devices/hostdev//source[@protocol]"
        " | devices/interface[@type='user' or @type='udp']"
        " | devices/audio[@type='pulseaudio' or @type='jack' or @type='pipewire']"
    )
    shares_by_9p: bool = present("devices/filesystem[not(driver/@type='virtiofs')]")
    uses_io_uring: bool = present("devices/disk//driver[@io='io_uring']")
    hashes_frames: bool = present("devices/interface/driver[@rss='on']")
    common_files: tuple[str, ...] = texts(
        "os/loader | os/nvram/@template | devices/*/rom/@file | devices/disk//config/@file"
    )
    other_paths: tuple[str, ...] = texts(PATHS_BESIDE_DEVICES)
    programs: tuple[str, ...] = texts(
        "devices/*/script/@path | devices/*/downscript/@path | devices/*/binary/@path | bootloader"
    )
    vhost_user_sockets: tuple[str, ...] = texts(
        "devices/*[@type='vhostuser'][self::disk or self::interface]/source/@path"
        " | devices/filesystem/source/@socket"
    )
    pipes: tuple[str, ...] = texts(
        "devices/*[@type='pipe']/source/@path | devices/*/backend[@type='pipe']/source/@path"
    )
    unix_sockets: tuple[str, ...] = texts(
        "devices/*[@type='unix']/source/@path | devices/*/backend[@type='unix']/source/@path"
        " | devices/*/backend[@type='external']/source/@path | devices/shmem/server/@path"
        " | devices/audio/@serverName | devices/*//source/host/@socket"
        " | devices/disk//reservations/source/@path | os/nvram/source/host/@socket"
    )
    memory_source: str = text("memoryBacking/source/@type")
    backs_memory: bool = present("memoryBacking | cpu/numa/cell/@memAccess")
    huge_pages: bool = present("memoryBacking/hugepages")
    on_crash: str = text("on_crash")
    watchdogs: tuple[str, ...] = texts("devices/watchdog/@action")
    has_emulated_tpm: bool = present("devices/tpm/backend[@type='emulator']")
    tpm_states: tuple[str, ...] = texts("devices/tpm/backend[@type='emulator']/source/@path")
    passes_arguments: bool = present("qemu:commandline/* | qemu:override/* | qemu:capabilities/*")
    enrolment: bool = present("metadata/warden:enrolment")
    spelled: tuple[Spelled, ...] = children(
        "metadata/warden:enrolment/warden:disk/warden:backing[@depth = '0']"
    )
    copied: tuple[Copied, ...] = children("metadata/warden:enrolment/warden:copy")
    spelled_bases: tuple[str, ...] = texts(
        "metadata/warden:enrolment/warden:disk/warden:backing/@base"
    )

    def is_same_as(self, other: Domain) -> bool:
        """Whether both say the same, in whatever order: libvirt sorts devices anew."""
        return all(
            _unordered(getattr(self, item.name)) == _unordered(getattr(other, item.name))
            for item in fields(self)
        )

    def has_former_chain(self, disk: Disk) -> bool:
        """Whether enrolment wrote a disk's chain for another image than the disk has now."""
        below = disk.backing.path if disk.backing else None
        return any(
            (note.target, note.base) == (disk.target, below) and note.image != stamp(disk.path)
            for note in self.spelled
        )


def _unordered(value: Any) -> Any:
    return Counter(value) if isinstance(value, tuple) else value


def parse(untrusted_xml: bytes, *others: str, tag_limit: int = TAG_LIMIT) -> etree._Element:
    """The XML of one domain as a tree, or of one of the `others`, by the name of its root.

    The text is untrusted: no entity is expanded, and nothing is fetched. Raises DomainError for a
    text that is larger than `XML_LIMIT_BYTES`, would take long to read, or has a document type.
    """
    if len(untrusted_xml) > XML_LIMIT_BYTES:
        raise DomainError(f"the domain's XML is larger than {XML_LIMIT_BYTES} bytes")
    if untrusted_xml.count(b"<") > tag_limit:
        raise DomainError(f"the domain's XML has more than {tag_limit // 2} elements")
    if max(part.count(b"=") for part in untrusted_xml.split(b"<")) > _ATTRIBUTE_LIMIT:
        raise DomainError(f"the domain's XML has an element of over {_ATTRIBUTE_LIMIT} attributes")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    try:
        root = etree.fromstring(untrusted_xml, parser)
    except etree.XMLSyntaxError as error:
        raise DomainError(f"the domain's XML cannot be read: {error}") from None
    if _document_type(root):
        raise DomainError("the domain's XML carries a document type, which libvirt never writes")
    if root.tag not in ("domain", *others):
        raise DomainError(f"the XML is that of a <{root.tag}>, not of a <domain>")
    return root


def _document_type(root: etree._Element) -> str:
    information: Any = root.getroottree().docinfo
    return str(information.doctype)


def read(untrusted_xml: bytes) -> Domain:
    """A Domain from its XML. Raises DomainError where it is not one, or lacks name or UUID."""
    domain = from_tree(parse(untrusted_xml))
    if not domain.name:
        raise DomainError("the domain's XML has no <name>")
    if not _UUID.fullmatch(domain.uuid):
        raise DomainError(f"the domain's XML has no valid <uuid>: {domain.uuid!r}")
    return domain


def from_tree(root: etree._Element) -> Domain:
    """A Domain from a parsed tree, whether or not it has a name and a UUID yet."""
    domain: Domain = xpath.read(root, Domain, _NAMESPACES)
    return replace(
        domain, uuid=_canonical(domain.uuid), disks=tuple(map(_of_its_file, domain.disks))
    )


def _of_its_file(disk: Disk) -> Disk:
    found = pools.place(disk.pool, disk.volume) if disk.kind == "volume" else None
    return disk if found is None else replace(disk, kind=found.kind, path=found.path)


def _canonical(written: str) -> str:
    """A UUID as libvirt writes it, from any form; a text that is no UUID stays as it is."""
    digits = written.strip().replace("-", "").lower()
    plain = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    return plain if _UUID.fullmatch(plain) else written

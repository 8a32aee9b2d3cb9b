"""A domain as libvirt's XML describes it: declared field by field, each with its XPath.

Reference: https://libvirt.org/formatdomain.html
"""

from __future__ import annotations

import re
import typing
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

from lxml import etree

from virtwarden.errors import DomainError

XML_LIMIT_BYTES = 4 * 1024 * 1024
WARDEN_NAMESPACE = "https://virt-warden.org/xmlns/libvirt/domain/1.0"
NAMESPACES = {
    "qemu": "http://libvirt.org/schemas/domain/qemu/1.0",
    "warden": WARDEN_NAMESPACE,
}
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_RELABEL_OFF = "seclabel[@model='dac' and @relabel='no']"


def text(xpath: str) -> Any:
    """The first text or attribute that the XPath finds, or an empty string."""
    return field(default="", metadata={"one": xpath})


def present(xpath: str) -> Any:
    """Whether the XPath finds anything."""
    return field(default=False, metadata={"flag": xpath})


def texts(xpath: str) -> Any:
    """All texts or attributes that the XPath finds, without the empty ones."""
    return field(default=(), metadata={"all": xpath})


def child(xpath: str) -> Any:
    """The element that the XPath finds, read as the field's own class, or None."""
    return field(default=None, metadata={"child": xpath})


def children(xpath: str) -> Any:
    """All elements that the XPath finds, read as the field's own class."""
    return field(default=(), metadata={"children": xpath})


@dataclass(frozen=True)
class Label:
    """`<seclabel>`: what a security driver does with this domain."""

    kind: str = text("@type")
    model: str = text("@model")
    relabel: str = text("@relabel")
    label: str = text("label/text()")
    image_label: str = text("imagelabel/text()")


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
    """`<disk>`: a disk, CD-ROM or floppy drive and what is in it."""

    kind: str = text("@type")
    device: str = text("@device")
    target: str = text("target/@dev")
    format: str = text("driver/@type")
    path: str = text("source/@file | source/@dev | source/@dir")
    has_source: bool = present("source")
    readonly: bool = present("readonly")
    shareable: bool = present("shareable")
    relabel_off: bool = present(f"source/{_RELABEL_OFF}")
    backing: Backing | None = child("backingStore")

    @property
    def layers(self) -> tuple[Backing, ...]:
        """The images below the disk's own, from the top, as far as the XML spells them out."""
        found: list[Backing] = []
        layer = self.backing
        while layer is not None and layer.kind:
            found.append(layer)
            layer = layer.backing
        return tuple(found)

    @property
    def is_spelled_out(self) -> bool:
        """Whether the XML says where the chain ends, so that libvirt believes no image's header."""
        if self.format in ("", "raw"):
            return True
        layer = self.backing
        while layer is not None and layer.kind:
            if layer.format == "raw":
                return True
            layer = layer.backing
        return layer is not None


@dataclass(frozen=True)
class Nic:
    """`<interface>`: a network card; `tap` is known once libvirt has made it."""

    kind: str = text("@type")
    mac: str = text("mac/@address")
    bridge: str = text("source/@bridge")
    network: str = text("source/@network")
    tap: str = text("target/@dev")


@dataclass(frozen=True)
class Listen:
    """`<listen>`: where a display is reached."""

    kind: str = text("@type")
    address: str = text("@address")
    socket: str = text("@socket")


@dataclass(frozen=True)
class Display:
    """`<graphics>`: a display; ports that libvirt chooses are known at the start."""

    kind: str = text("@type")
    port: str = text("@port")
    websocket: str = text("@websocket")
    address: str = text("@listen")
    socket: str = text("@socket")
    listens: tuple[Listen, ...] = children("listen")


@dataclass(frozen=True)
class Domain:
    """`<domain>`: what the guards look at."""

    name: str = text("name/text()")
    uuid: str = text("uuid/text()")
    arch: str = text("os/type/@arch")
    emulator: str = text("devices/emulator/text()")
    labels: tuple[Label, ...] = children("seclabel")
    disks: tuple[Disk, ...] = children("devices/disk")
    nics: tuple[Nic, ...] = children("devices/interface")
    displays: tuple[Display, ...] = children("devices/graphics")
    nvram: str = text("os/nvram/text() | os/nvram/source/@file")
    boot_files: tuple[str, ...] = texts(
        "os/kernel/text() | os/initrd/text() | os/dtb/text() | os/acpi/table/text()"
    )
    firmware: str = text("os/loader/text()")
    character_files: tuple[str, ...] = texts(
        "devices/*[@type='file'][self::serial or self::parallel or self::console or self::channel]"
        "/source/@path | devices/*/log/@file"
    )
    shared_directories: tuple[str, ...] = texts("devices/filesystem/source/@dir")
    assigns_devices: bool = present("devices/hostdev")
    speaks_tcp: bool = present(
        "devices/disk//source[@protocol] | devices/*[@type='tcp' or @type='udp']"
        " | devices/interface[@type='user' or @type='server' or @type='client']"
    )
    passes_arguments: bool = present("qemu:commandline/* | qemu:override/*")
    enrolment: bool = present("metadata/warden:enrolment")


def parse(xml: bytes) -> etree._Element:
    """The XML of one domain, as a tree.

    The text is untrusted: no entity is expanded, nothing is fetched, and what is larger than
    `XML_LIMIT_BYTES` or carries a document type is refused. Raises DomainError.
    """
    if len(xml) > XML_LIMIT_BYTES:
        raise DomainError(f"the domain's XML is larger than {XML_LIMIT_BYTES} bytes")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    try:
        root = etree.fromstring(xml, parser)
    except etree.XMLSyntaxError as error:
        raise DomainError(f"the domain's XML cannot be read: {error}") from None
    if _document_type(root):
        raise DomainError("the domain's XML carries a document type, which libvirt never writes")
    if root.tag != "domain":
        raise DomainError(f"the XML is that of a <{root.tag}>, not of a <domain>")
    return root


def _document_type(root: etree._Element) -> str:
    information: Any = root.getroottree().docinfo
    return str(information.doctype)


def read(xml: bytes) -> Domain:
    """A Domain out of its XML. Raises DomainError where it is not one, or lacks name or UUID."""
    domain = from_tree(parse(xml))
    if not domain.name:
        raise DomainError("the domain's XML has no <name>")
    if not _UUID.fullmatch(domain.uuid):
        raise DomainError(f"the domain's XML has no valid <uuid>: {domain.uuid!r}")
    return domain


def from_tree(root: etree._Element) -> Domain:
    """A Domain out of a parsed tree, whether or not it has a name and a UUID yet."""
    domain: Domain = _read(root, Domain)
    return domain


def _read(element: etree._Element, kind: Any) -> Any:
    found: dict[str, Any] = {}
    for name, how, xpath, inner in _plan(kind):
        nodes: Any = xpath(element)
        if how == "one":
            found[name] = str(nodes[0]).strip() if nodes else ""
        elif how == "flag":
            found[name] = bool(nodes)
        elif how == "all":
            found[name] = tuple(str(node).strip() for node in nodes if str(node).strip())
        elif how == "child":
            found[name] = _read(nodes[0], inner) if nodes else None
        else:
            found[name] = tuple(_read(node, inner) for node in nodes)
    return kind(**found)


@cache
def _plan(kind: Any) -> tuple[tuple[str, str, etree.XPath, Any], ...]:
    """A class's fields with their compiled XPaths, and the class of those that are elements."""
    hints = typing.get_type_hints(kind)
    plan = []
    for item in fields(kind):
        ((how, xpath),) = item.metadata.items()
        inner = typing.get_args(hints[item.name])[:1]
        plan.append(
            (item.name, how, etree.XPath(xpath, namespaces=NAMESPACES), *(inner or (None,)))
        )
    return tuple(plan)

"""A domain's XML, made ready for virt-warden, and made again what it was.

libvirt reads neither the user nor the emulator nor the labels of images from a hook: they must
stand in the domain's own XML. What enrolment changes there it notes in the domain's `<metadata>`.
"""

from __future__ import annotations

import copy
import uuid

from lxml import etree

from virtwarden import ticket
from virtwarden.domain import WARDEN_NAMESPACE, Domain, from_tree, parse
from virtwarden.errors import DomainError
from virtwarden.guards.identity import candidates
from virtwarden.paths import Paths
from virtwarden.system import images, users

_WARDEN = f"{{{WARDEN_NAMESPACE}}}"
_ENROLMENT = f"{_WARDEN}enrolment"
_RELABEL_OFF = "seclabel[@model='dac'][@relabel='no']"
_SINGLE = ("", "raw")


def enrol_xml(xml: bytes, prefix: str, paths: Paths) -> bytes:
    """The XML of a domain with its user, wrapper and spelled-out images.

    XML that is enrolled already comes out as it went in, mended where someone edited it. Raises
    DomainError where it is no domain's, and HostError where an image cannot be looked at.
    """
    root = parse(xml)
    _restore(root)
    _have_uuid(root)
    domain = from_tree(root)
    notes = etree.Element(_ENROLMENT, nsmap={"warden": WARDEN_NAMESPACE})
    _set_emulator(root, domain, paths, notes)
    _set_label(root, _choose_user(domain, prefix), notes)
    for disk in root.iterfind("devices/disk"):
        _spell_out(disk, notes)
    _metadata(root).append(notes)
    return _written(root)


def unenrol_xml(xml: bytes) -> bytes:
    """The XML as it was before it was enrolled; as it is where it never was."""
    root = parse(xml)
    _restore(root)
    return _written(root)


def is_enrolled(xml: bytes) -> bool:
    """Whether the XML carries the notes of an enrolment."""
    return from_tree(parse(xml)).enrolment


def _written(root: etree._Element) -> bytes:
    return bytes(etree.tostring(root, encoding="utf-8"))


def _have_uuid(root: etree._Element) -> None:
    """libvirt would choose one only when it defines the domain: too late for the user's name."""
    if root.findtext("uuid"):
        return
    name = root.find("name")
    if name is None or not name.text:
        raise DomainError("the domain's XML has no <name>")
    element = etree.Element("uuid")
    element.text = str(uuid.uuid4())
    name.addnext(element)


def _choose_user(domain: Domain, prefix: str) -> str:
    """The user that the domain has, or else the best name that is nobody else's."""
    own = users.account_of(domain.uuid)
    if own is not None:
        return own.name
    names = candidates(prefix, domain.name, domain.uuid)
    free = [name for name in names if users.account(name) is None]
    if not free:
        raise DomainError(
            f"user {names[-1]} exists and is not this domain's",
            fix=f"see whose it is: getent passwd {names[-1]}",
        )
    return free[0]


def _metadata(root: etree._Element) -> etree._Element:
    metadata = root.find("metadata")
    if metadata is None:
        metadata = etree.SubElement(root, "metadata")
    return metadata


def _set_emulator(
    root: etree._Element, domain: Domain, paths: Paths, notes: etree._Element
) -> None:
    devices = root.find("devices")
    if devices is None:
        devices = etree.SubElement(root, "devices")
    emulator = devices.find("emulator")
    if emulator is None:
        emulator = etree.Element("emulator")
        devices.insert(0, emulator)
    else:
        etree.SubElement(notes, f"{_WARDEN}emulator").text = emulator.text
    emulator.text = ticket.wrapper_path(paths, domain.arch)


def _set_label(root: etree._Element, user: str, notes: etree._Element) -> None:
    for former in root.findall("seclabel[@model='dac']"):
        notes.append(copy.deepcopy(former))
        root.remove(former)
    label = etree.SubElement(root, "seclabel", type="static", model="dac", relabel="yes")
    etree.SubElement(label, "label").text = f"{user}:{user}"


def _spell_out(disk: etree._Element, notes: etree._Element) -> None:
    """Say in the XML what a disk is based on, and that what is shared stays whose it is."""
    note = etree.Element(f"{_WARDEN}disk", target=_attribute(disk, "target", "dev"))
    if disk.find("readonly") is not None or disk.find("shareable") is not None:
        _switch_relabel_off(disk, 0, note)
    layer, depth, layer_format = disk, 0, _attribute(disk, "driver", "type")
    while layer_format not in _SINGLE and layer.find("source") is not None:
        backing = layer.find("backingStore")
        if backing is None:
            backing = _look_below(layer, layer_format)
            etree.SubElement(note, f"{_WARDEN}backing", depth=str(depth))
        if not backing.get("type"):
            break
        layer, depth = backing, depth + 1
        _switch_relabel_off(layer, depth, note)
        layer_format = _attribute(layer, "format", "type")
    if len(note):
        notes.append(note)


def _look_below(layer: etree._Element, layer_format: str) -> etree._Element:
    backing = etree.SubElement(layer, "backingStore")
    path = _attribute(layer, "source", "file") or _attribute(layer, "source", "dev")
    below = images.backing(path, layer_format) if path else None
    if below is not None:
        attribute = "dev" if below.is_device else "file"
        backing.set("type", "block" if below.is_device else "file")
        etree.SubElement(backing, "format", type=below.format)
        etree.SubElement(backing, "source", {attribute: below.path})
    return backing


def _switch_relabel_off(layer: etree._Element, depth: int, note: etree._Element) -> None:
    source = layer.find("source")
    if source is None or source.find(_RELABEL_OFF) is not None:
        return
    etree.SubElement(source, "seclabel", model="dac", relabel="no")
    etree.SubElement(note, f"{_WARDEN}relabel", depth=str(depth))


def _restore(root: etree._Element) -> None:
    """Undo what the notes say was done, as far as it still stands."""
    metadata = root.find("metadata")
    notes = metadata.find(_ENROLMENT) if metadata is not None else None
    if metadata is None or notes is None:
        return
    metadata.remove(notes)
    if not len(metadata):
        root.remove(metadata)
    _restore_emulator(root, notes)
    for label in root.findall("seclabel[@model='dac']"):
        root.remove(label)
    for former in notes.findall("seclabel"):
        root.append(former)
    for note in notes.findall(f"{_WARDEN}disk"):
        for disk in root.iterfind("devices/disk"):
            if _attribute(disk, "target", "dev") == note.get("target"):
                _restore_disk(disk, note)


def _restore_emulator(root: etree._Element, notes: etree._Element) -> None:
    emulator = root.find("devices/emulator")
    former = notes.find(f"{_WARDEN}emulator")
    if emulator is None:
        return
    if former is None:
        _remove(emulator)
    else:
        emulator.text = former.text


def _restore_disk(disk: etree._Element, note: etree._Element) -> None:
    for mark in note.findall(f"{_WARDEN}relabel"):
        layer = _layer(disk, int(mark.get("depth", "0")))
        label = layer.find(f"source/{_RELABEL_OFF}") if layer is not None else None
        if label is not None:
            _remove(label)
    for mark in note.findall(f"{_WARDEN}backing"):
        layer = _layer(disk, int(mark.get("depth", "0")))
        backing = layer.find("backingStore") if layer is not None else None
        if backing is not None:
            _remove(backing)


def _attribute(element: etree._Element, child: str, name: str) -> str:
    found = element.find(child)
    return found.get(name, "") if found is not None else ""


def _remove(element: etree._Element) -> None:
    parent = element.getparent()
    if parent is not None:
        parent.remove(element)


def _layer(disk: etree._Element, depth: int) -> etree._Element | None:
    layer: etree._Element | None = disk
    for _ in range(depth):
        layer = layer.find("backingStore") if layer is not None else None
    return layer

# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes into a domain's XML what each disk is based on, and takes it out again.

Where the XML does not name the base image, libvirt reads it from the image's header at each start.
An escaped guest can write any path of the host into that header. So virt-warden reads the header
once, when it enrols the domain, and never again once the domain's user could write the image
(enrolment/headers.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lxml import etree

from virtwarden.domain import pools
from virtwarden.domain.model import WARDEN_NAMESPACE, Domain, stamp
from virtwarden.enrolment import headers, tree
from virtwarden.enrolment.headers import Asker
from virtwarden.system import users
from virtwarden.system.images import Image

_WARDEN = f"{{{WARDEN_NAMESPACE}}}"
_DISK, _BACKING, _RELABEL = f"{_WARDEN}disk", f"{_WARDEN}backing", f"{_WARDEN}relabel"
_RELABEL_OFF = "seclabel[@model='dac'][@relabel='no']"
_SINGLE = ("", "raw")
_LOCAL = ("", "file", "block")

Known = Mapping[tuple[str, str], Image | None]
"""What an image is based on, by its disk's target, or none, and its path; None: it stands alone."""


def known(root: etree._Element, domain: Domain) -> Known:
    """What the XML already says of each image, except of a disk's former image.

    A disk may have got another image since it was enrolled, and what the XML says is then of the
    former one. It still counts where a VM's user owns the new image: only libvirt can have put that
    there, for example with a snapshot that was merged since. The VM's QEMU wrote that image, and
    what the XML says of it comes from libvirt.
    """
    found: dict[tuple[str, str], Image | None] = {}
    former = {
        disk.target
        for disk in domain.disks
        if domain.has_former_chain(disk) and not users.owns_as_vm(disk.path)
    }
    for disk in root.iterfind("devices/disk"):
        if _target(disk) in former:
            continue
        for _, layer in _layers(disk):
            path, backing = _path(layer), layer.find("backingStore")
            if path and backing is not None and backing.get("type", "") in _LOCAL:
                image = _image(backing)
                found[_target(disk), path] = image
                found.setdefault(("", path), image)  # for a disk that gets another target
    return found


def spell_out(root: etree._Element, notes: etree._Element, said: Known, asker: Asker) -> None:
    """Name each disk's base images, and keep libvirt from changing the owner of shared ones.

    Each alteration is noted. Raises HostError and CommandError where `said` says nothing of an
    image, and nothing else tells on what it is based.
    """
    for disk in root.iterfind("devices/disk"):
        note = etree.Element(_DISK, target=_target(disk), source=_path(disk))
        _spell_out(disk, note, said, asker)
        if len(note):
            notes.append(note)


def restore(root: etree._Element, notes: etree._Element) -> None:
    """Undo each noted alteration that is still in place."""
    disks = root.findall("devices/disk")
    for note in notes.iterfind(_DISK):
        same = [disk for disk in disks if _path(disk) == note.get("source")]
        named = [disk for disk in disks if _target(disk) == note.get("target")]
        exactly = [disk for disk in same if disk in named]
        for disk in exactly or same or named:
            _restore(disk, note)


def _spell_out(disk: etree._Element, note: etree._Element, said: Known, asker: Asker) -> None:
    if disk.find("readonly") is not None or disk.find("shareable") is not None:
        _switch_relabel_off(disk, 0, note)
    layer, depth, layer_format = disk, 0, tree.attribute(disk, "driver", "type")
    while layer.find("source") is not None:
        backing = layer.find("backingStore")
        if backing is None:
            # Nobody can see what is below an image that is no file of this host. To say that
            # nothing is would have QEMU read zeros there, and bury a base that there is.
            if layer_format in _SINGLE or not _path(layer):
                break
            below = _below(layer, layer_format, _target(disk), said, asker)
            backing = _name_below(layer, below)
            made = {"of": stamp(_path(layer)), "base": _path(backing)}
            etree.SubElement(note, _BACKING, {"depth": str(depth), **made})
        if not backing.get("type"):
            break
        layer, depth = backing, depth + 1
        if not (_path(layer) and headers.is_own(asker, _path(layer))):
            _switch_relabel_off(layer, depth, note)
        layer_format = tree.attribute(layer, "format", "type")


def _below(
    layer: etree._Element, layer_format: str, target: str, said: Known, asker: Asker
) -> Image | None:
    path = _path(layer)
    for key in ((target, path), ("", path)):
        if key in said:
            return said[key]
    return headers.base(asker, path, layer_format)


def _name_below(layer: etree._Element, below: Image | None) -> etree._Element:
    backing = etree.SubElement(layer, "backingStore")
    if below is not None:
        backing.set("type", "block" if below.is_device else "file")
        etree.SubElement(backing, "format", type=below.format)
        etree.SubElement(backing, "source", {"dev" if below.is_device else "file": below.path})
    return backing


def _switch_relabel_off(layer: etree._Element, depth: int, note: etree._Element) -> None:
    source = layer.find("source")
    # libvirt's schema has labels for these alone; libvirt drops one of a network disk.
    if source is None or not (layer.get("type", "") in _LOCAL or _is_known_volume(layer)):
        return
    if source.find(_RELABEL_OFF) is not None:
        return
    ours = etree.Element("seclabel", model="dac", relabel="no")
    mark = etree.SubElement(note, _RELABEL, {"depth": str(depth), "of": stamp(_path(layer))})
    former = source.find("seclabel[@model='dac']")
    if former is None:
        source.append(ours)
    else:
        mark.append(tree.bare(former))
        tree.replace(former, ours)


def _restore(disk: etree._Element, note: etree._Element) -> None:
    layers = {str(depth): layer for depth, layer in _layers(disk)}
    for mark in note.iterfind(_RELABEL):
        layer = layers.get(mark.get("depth", ""))
        label = layer.find(f"source/{_RELABEL_OFF}") if layer is not None else None
        # The disk itself may have another source by now while the label is still ours.
        if layer is not None and label is not None and (layer is disk or _is_of(mark, layer)):
            tree.replace(label, *(tree.bare(former) for former in mark))
    for mark in note.iterfind(_BACKING):
        layer = layers.get(mark.get("depth", ""))
        backing = layer.find("backingStore") if layer is not None else None
        if layer is None or backing is None or _path(backing) != mark.get("base"):
            continue
        # This is ours even where the disk got another image since.
        if _is_of(mark, layer) or layer is disk:
            tree.remove(backing)


def _is_of(mark: etree._Element, layer: etree._Element) -> bool:
    return stamp(_path(layer)) == mark.get("of")


def _layers(disk: etree._Element) -> Iterator[tuple[int, etree._Element]]:
    """A disk and the images below it, each with its depth."""
    layer: etree._Element | None = disk
    depth = 0
    while layer is not None:
        yield depth, layer
        layer, depth = layer.find("backingStore"), depth + 1


def _target(disk: etree._Element) -> str:
    return tree.attribute(disk, "target", "dev")


def _is_known_volume(layer: etree._Element) -> bool:
    return layer.get("type") == "volume" and bool(_path(layer))


def _path(layer: etree._Element) -> str:
    """Where an image is; an empty string where it is no file of this host."""
    if layer.get("type") == "volume":
        pool, volume = (tree.attribute(layer, "source", name) for name in ("pool", "volume"))
        found = pools.place(pool, volume)
        return found.path if found else ""
    return tree.attribute(layer, "source", "file") or tree.attribute(layer, "source", "dev")


def _image(backing: etree._Element) -> Image | None:
    if not backing.get("type"):
        return None
    is_device = backing.get("type") == "block"
    return Image(_path(backing), tree.attribute(backing, "format", "type"), is_device)

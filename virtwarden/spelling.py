"""What a disk is based on, spelled out in the domain's XML, and taken out of it again.

Where the XML does not say, libvirt believes the image's header at each start, and whoever took
over a guest's QEMU can write any path of the host into it. So the header is asked once, at the
enrolment, and never again while the domain is enrolled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lxml import etree

from virtwarden import tree
from virtwarden.domain import WARDEN_NAMESPACE
from virtwarden.system import images
from virtwarden.system.images import Image

_WARDEN = f"{{{WARDEN_NAMESPACE}}}"
_DISK, _BACKING, _RELABEL = f"{_WARDEN}disk", f"{_WARDEN}backing", f"{_WARDEN}relabel"
_RELABEL_OFF = "seclabel[@model='dac'][@relabel='no']"
_SINGLE = ("", "raw")
_LOCAL = ("", "file", "block")

Known = Mapping[str, Image | None]
"""What each image is based on, by its path; None: it stands alone."""


def known(root: etree._Element) -> Known:
    """What the XML says already."""
    found: dict[str, Image | None] = {}
    for disk in root.iterfind("devices/disk"):
        for _, layer in _layers(disk):
            backing = layer.find("backingStore")
            if _path(layer) and backing is not None and backing.get("type", "") in _LOCAL:
                found[_path(layer)] = _image(backing)
    return found


def spell_out(root: etree._Element, notes: etree._Element, said: Known) -> None:
    """Say of each disk what it is based on, and that what is shared stays whose it is.

    What was altered is noted. Raises HostError and CommandError where an image of which nothing
    is `said` cannot be looked at.
    """
    for disk in root.iterfind("devices/disk"):
        note = etree.Element(
            _DISK, target=tree.attribute(disk, "target", "dev"), source=_path(disk)
        )
        _spell_out(disk, note, said)
        if len(note):
            notes.append(note)


def restore(root: etree._Element, notes: etree._Element) -> None:
    """Undo what was noted, as far as it still stands."""
    disks = root.findall("devices/disk")
    for note in notes.iterfind(_DISK):
        same = [disk for disk in disks if _path(disk) == note.get("source")]
        named = [d for d in disks if tree.attribute(d, "target", "dev") == note.get("target")]
        for disk in same or named:
            _restore(disk, note)


def _spell_out(disk: etree._Element, note: etree._Element, said: Known) -> None:
    if disk.find("readonly") is not None or disk.find("shareable") is not None:
        _switch_relabel_off(disk, 0, note)
    layer, depth, layer_format = disk, 0, tree.attribute(disk, "driver", "type")
    while layer_format not in _SINGLE and layer.find("source") is not None:
        backing = layer.find("backingStore")
        if backing is None:
            backing = _look_below(layer, layer_format, said)
            made = {"of": _path(layer), "base": _path(backing)}
            etree.SubElement(note, _BACKING, {"depth": str(depth), **made})
        if not backing.get("type"):
            break
        layer, depth = backing, depth + 1
        _switch_relabel_off(layer, depth, note)
        layer_format = tree.attribute(layer, "format", "type")


def _look_below(layer: etree._Element, layer_format: str, said: Known) -> etree._Element:
    path = _path(layer)
    below = None
    if path in said:
        below = said[path]
    elif path:
        below = images.backing(path, layer_format)
    backing = etree.SubElement(layer, "backingStore")
    if below is not None:
        backing.set("type", "block" if below.is_device else "file")
        etree.SubElement(backing, "format", type=below.format)
        etree.SubElement(backing, "source", {"dev" if below.is_device else "file": below.path})
    return backing


def _switch_relabel_off(layer: etree._Element, depth: int, note: etree._Element) -> None:
    source = layer.find("source")
    if source is None or source.find(_RELABEL_OFF) is not None:
        return
    ours = etree.Element("seclabel", model="dac", relabel="no")
    mark = etree.SubElement(note, _RELABEL, {"depth": str(depth), "of": _path(layer)})
    former = source.find("seclabel[@model='dac']")
    if former is None:
        source.append(ours)
    else:
        mark.append(tree.bare(former))
        tree.replace(former, ours)


def _restore(disk: etree._Element, note: etree._Element) -> None:
    layers = dict(_layers(disk))
    for mark in note.iterfind(_RELABEL):
        layer = layers.get(int(mark.get("depth", "0")))
        label = layer.find(f"source/{_RELABEL_OFF}") if layer is not None else None
        # Of a disk, the source may be another by now, and the label still ours.
        if layer is not None and label is not None and (layer is disk or _is_of(mark, layer)):
            tree.replace(label, *(tree.bare(former) for former in mark))
    for mark in note.iterfind(_BACKING):
        layer = layers.get(int(mark.get("depth", "0")))
        backing = layer.find("backingStore") if layer is not None else None
        if layer is None or backing is None or _path(backing) != mark.get("base"):
            continue
        if _is_of(mark, layer):
            tree.remove(backing)


def _is_of(mark: etree._Element, layer: etree._Element) -> bool:
    return _path(layer) == mark.get("of")


def _layers(disk: etree._Element) -> Iterator[tuple[int, etree._Element]]:
    """A disk and the images below it, each with its depth."""
    layer: etree._Element | None = disk
    depth = 0
    while layer is not None:
        yield depth, layer
        layer, depth = layer.find("backingStore"), depth + 1


def _path(layer: etree._Element) -> str:
    return tree.attribute(layer, "source", "file") or tree.attribute(layer, "source", "dev")


def _image(backing: etree._Element) -> Image | None:
    if not backing.get("type"):
        return None
    is_device = backing.get("type") == "block"
    return Image(_path(backing), tree.attribute(backing, "format", "type"), is_device)

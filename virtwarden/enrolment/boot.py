# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes into a domain's XML the paths of its own copies of the files that it boots.

Those are the kernel, initrd, shim and device tree, ACPI tables, and files for fw_cfg. The copies
are made at each start (guards/boot.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from lxml import etree

from virtwarden.domain.bootfiles import copy_of, is_copy
from virtwarden.domain.model import WARDEN_NAMESPACE
from virtwarden.enrolment import tree
from virtwarden.paths import Paths

_COPY = f"{{{WARDEN_NAMESPACE}}}copy"
_PLACES = (
    *("os/kernel", "os/initrd", "os/shim", "os/dtb", "os/acpi/table"),
    "sysinfo/entry[@file]",
)


def spell_out(root: etree._Element, notes: etree._Element, paths: Paths, uuid: str) -> None:
    """Name a copy instead of each boot file, and note which file it is a copy of."""
    noted: set[str] = set()
    for element in _elements(root):
        original = _path(element)
        if not original.startswith("/") or is_copy(paths, original):
            continue
        copy = copy_of(paths, uuid, original)
        _set_path(element, copy)
        if copy not in noted:
            noted.add(copy)
            etree.SubElement(notes, _COPY, path=copy, of=original)


def restore(root: etree._Element, notes: etree._Element) -> None:
    """Name the original again wherever a noted copy is still named."""
    originals = {note.get("path"): note.get("of", "") for note in notes.iterfind(_COPY)}
    for element in _elements(root):
        if _path(element) in originals:
            _set_path(element, originals[_path(element)])


def _elements(root: etree._Element) -> Iterator[etree._Element]:
    for place in _PLACES:
        yield from root.iterfind(place)


def _path(element: etree._Element) -> str:
    return element.get("file", "") if element.tag == "entry" else tree.text(element)


def _set_path(element: etree._Element, path: str) -> None:
    if element.tag == "entry":
        element.set("file", path)
    else:
        tree.set_text(element, path)

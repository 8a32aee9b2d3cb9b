# SPDX-License-Identifier: GPL-2.0-or-later
"""Alters an XML tree so that undoing an alteration leaves it byte for byte as it was.

lxml keeps the white space after an element with that element; here the white space stays in its
place.
"""

from __future__ import annotations

import copy

from lxml import etree


def remove(element: etree._Element) -> None:
    """Take an element out of its parent, and nothing else."""
    parent = element.getparent()
    if parent is None:
        return
    before, tail = element.getprevious(), element.tail or ""
    parent.remove(element)
    if not tail:
        return
    if before is not None:
        before.tail = (before.tail or "") + tail
    else:
        parent.text = (parent.text or "") + tail


def replace(element: etree._Element, *others: etree._Element) -> None:
    """Put other elements in an element's place."""
    for other in others:
        other.tail = None
        element.addprevious(other)
    remove(element)


def bare(element: etree._Element) -> etree._Element:
    """A copy of an element without what surrounds it."""
    copied = copy.deepcopy(element)
    copied.tail = None
    return copied


def text(element: etree._Element) -> str:
    """All the text of an element, without the comments in it: what libvirt reads."""
    return str(element.xpath("string()"))


def set_text(element: etree._Element, wanted: str) -> None:
    """Make this all the text of an element; comments in it stay."""
    for comment in element:
        comment.tail = None
    element.text = wanted


def copy_content(source: etree._Element, target: etree._Element) -> None:
    """Give an element the text and the comments of another one, and take away its own."""
    for child in [*target]:
        target.remove(child)
    target.text = source.text
    target.extend(copy.deepcopy(child) for child in source)


def attribute(element: etree._Element, child: str, name: str) -> str:
    """An attribute of an element's first child of this name, or an empty string."""
    found = element.find(child)
    return found.get(name, "") if found is not None else ""

# SPDX-License-Identifier: GPL-2.0-or-later
"""Classes that declare an XPath for each field, and are read from the XML with these.

They read what libvirt would read. Nothing is trimmed, since a name that ends in a blank is another
file's name.
"""

from __future__ import annotations

import typing
from dataclasses import field, fields
from functools import cache
from typing import Any

from lxml import etree


def text(xpath: str) -> Any:
    """The text of the first element or attribute that the XPath finds, or an empty string.

    Where an XPath gives a string, as a function does, that string is the text.
    """
    return field(default="", metadata={"one": xpath})


def present(xpath: str) -> Any:
    """Whether the XPath finds anything."""
    return field(default=False, metadata={"flag": xpath})


def texts(xpath: str) -> Any:
    """The texts of all elements and attributes that the XPath finds, without the blank ones."""
    return field(default=(), metadata={"all": xpath})


def child(xpath: str) -> Any:
    """The element that the XPath finds, read as the field's own class, or None."""
    return field(default=None, metadata={"child": xpath})


def children(xpath: str) -> Any:
    """All elements that the XPath finds, read as the field's own class."""
    return field(default=(), metadata={"children": xpath})


def read(element: etree._Element, kind: Any, namespaces: tuple[tuple[str, str], ...] = ()) -> Any:
    """An instance of a class whose fields are all declared by the functions above."""
    found: dict[str, Any] = {}
    for name, how, xpath, inner in _plan(kind, namespaces):
        nodes: Any = xpath(element)
        if how == "one":
            found[name] = nodes if isinstance(nodes, str) else _first(nodes)
        elif how == "flag":
            found[name] = bool(nodes)
        elif how == "all":
            found[name] = tuple(value for value in map(_value, nodes) if value.strip())
        elif how == "child":
            found[name] = read(nodes[0], inner, namespaces) if nodes else None
        else:
            found[name] = tuple(read(node, inner, namespaces) for node in nodes)
    return kind(**found)


def _first(nodes: list[Any]) -> str:
    return _value(nodes[0]) if nodes else ""


_whole_text = etree.XPath("string()")


def _value(node: Any) -> str:
    """An attribute, or all the text of an element, without the comments in it."""
    return str(node if isinstance(node, str) else _whole_text(node))


@cache
def _plan(
    kind: Any, namespaces: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, str, etree.XPath, Any], ...]:
    """A class's fields with their compiled XPaths, and the class of those that are elements."""
    hints = typing.get_type_hints(kind)
    plan = []
    for item in fields(kind):
        ((how, xpath),) = item.metadata.items()
        inner = typing.get_args(hints[item.name])[:1]
        compiled = etree.XPath(xpath, namespaces=dict(namespaces))
        plan.append((item.name, how, compiled, *(inner or (None,))))
    return tuple(plan)

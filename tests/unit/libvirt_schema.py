# SPDX-License-Identifier: GPL-2.0-or-later
"""Every place of libvirt's own schema of a domain where a text or an attribute can stand."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from lxml import etree

# Of Debian's libvirt0, which is there wherever libvirt is.
SCHEMAS = Path("/usr/share/libvirt/schemas")
_RNG = "{http://relaxng.org/ns/structure/1.0}"

Place = tuple[str, ...]
"""The elements from `domain` down, the last one an attribute (@name) or text()."""


@cache
def places() -> dict[Place, frozenset[str]]:
    """Each place with the names of the types that its value may have; "text" if a slash may be
    in it."""
    walk = _Walk()
    walk.into(walk.start, (), ())
    return {place: frozenset(types) for place, types in walk.found.items()}


def _takes_a_slash(data: etree._Element) -> bool:
    patterns = [param.text or "" for param in data.iter(f"{_RNG}param")]
    return data.get("type") == "string" and all(re.fullmatch(p, "a/b") for p in patterns)


class _Walk:
    """Goes through a schema, each definition once on the way to a place."""

    def __init__(self) -> None:
        self.found: defaultdict[Place, set[str]] = defaultdict(set)
        self._definitions: defaultdict[str, list[etree._Element]] = defaultdict(list)
        root = self._load("domain.rng", set())
        start = root.find(f"{_RNG}start")
        assert start is not None
        self.start = start

    def _load(self, name: str, loaded: set[str]) -> etree._Element:
        loaded.add(name)
        root = etree.parse(str(SCHEMAS / name)).getroot()
        for include in root.iter(f"{_RNG}include"):
            if include.get("href") not in loaded:
                self._load(include.get("href", ""), loaded)
        for definition in root.iter(f"{_RNG}define"):
            self._definitions[definition.get("name", "")].append(definition)
        return root

    def into(self, nodes: Iterable[etree._Element], place: Place, through: tuple[str, ...]) -> None:
        for node in nodes:
            kind, name = str(node.tag).removeprefix(_RNG), node.get("name", "*")
            if kind == "element":
                self.into(node, (*place, name), through)
            elif kind == "attribute":
                leaf = (*place, f"@{name}")
                self.into(node, leaf, through)
                if not len(node):
                    self._note(leaf, "text")
            elif kind == "ref" and name not in through:
                if not self._has_structure(name):
                    self._note(place, name)
                for definition in self._definitions[name]:
                    self.into(definition, place, (*through, name))
            elif kind == "text" or (kind == "data" and _takes_a_slash(node)):
                self._note(place, "text")
            else:
                self.into(node, place, through)

    def _note(self, place: Place, kind: str) -> None:
        leaf = place if place[-1].startswith("@") else (*place, "text()")
        self.found[leaf].add(kind)

    def _has_structure(self, name: str) -> bool:
        return any(
            node.tag in (f"{_RNG}element", f"{_RNG}attribute", f"{_RNG}ref")
            for definition in self._definitions[name]
            for node in definition.iter()
        )


def written(place: Place, value: str) -> etree._Element:
    """A domain with this value in this place, and nothing else."""
    *elements, leaf = place
    root = node = etree.Element(elements[0])
    for name in elements[1:]:
        node = etree.SubElement(node, name)
    if leaf.startswith("@"):
        node.set(leaf[1:], value)
    else:
        node.text = value
    return root

# SPDX-License-Identifier: GPL-2.0-or-later
"""Print virt-warden.toml(5), its keys out of schema.json: `keys.py PAGE SCHEMA`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from virtwarden.policy.schema import entry, is_named, read, resolved

_PLACE = '.\\" @KEYS@\n'
Node = Mapping[str, Any]


def page(template: str, schema: Node) -> str:
    """The page, in mdoc(7)."""
    return template.replace(_PLACE, "".join(f"{line}\n" for line in _sections(schema)))


def _sections(schema: Node) -> Iterator[str]:
    whole_host, some_domains = schema["properties"], entry(schema)["properties"]
    own = {key: node for key, node in some_domains.items() if key not in whole_host}
    yield ".Sh KEYS OF THE WHOLE HOST"
    yield from _tables(schema, {k: node for k, node in whole_host.items() if k != "domain"}, "")
    yield ".Sh KEYS OF SOME DOMAINS"
    yield ".Ss [[domain]]"
    yield from _text(whole_host["domain"]["description"])
    also = ", ".join(key for key in some_domains if key in whole_host)
    yield from _text(f"Also allowed here, as above: {also}. Write a table as [domain.console].")
    yield from _tables(schema, own, "domain.")


def _tables(schema: Node, keys: Node, prefix: str) -> Iterator[str]:
    """Keys, those with a value of their own first, then each table of keys."""
    tables = {key for key in keys if resolved(schema, keys[key]).get("type") == "object"}
    yield from _keys(schema, {key: keys[key] for key in keys if key not in tables})
    for key in (key for key in keys if key in tables):
        node, heading = resolved(schema, keys[key]), f"[{prefix}{key}]"
        about = [node.get("description", "")]
        if is_named(node):
            node, heading = resolved(schema, node["additionalProperties"]), f"[{prefix}{key}.NAME]"
            about.append(node.get("description", ""))
        yield f".Ss {heading}"
        yield from _text(" ".join(filter(None, about)))
        yield from _keys(schema, node["properties"])


def _keys(schema: Node, keys: Node) -> Iterator[str]:
    yield ".Bl -tag -width Ds"
    for key, declared in keys.items():
        node = resolved(schema, declared)
        yield f".It Ic {key}"
        yield from _text(declared.get("description", node.get("description", "")))
        words = node.get("enum") or node.get("items", {}).get("enum")
        if words:
            yield from _text(f"One of {', '.join(map(json.dumps, words))}.")
        if "default" in declared:
            yield from _text(f"Default: {json.dumps(declared['default'])}")
        if "properties" in node:
            yield from _keys(schema, node["properties"])
    yield ".El"


def _text(text: str) -> Iterator[str]:
    """A paragraph, a line for each sentence, nothing in it taken for a request of roff's."""
    sentences = text.replace("\\", "\\e").replace("-", "\\-").split(". ")
    for sentence in sentences[:-1]:
        yield f"\\&{sentence}."
    yield f"\\&{sentences[-1]}"


if __name__ == "__main__":
    template, schema = map(Path, sys.argv[1:3])
    sys.stdout.write(page(template.read_text(), read(schema)))

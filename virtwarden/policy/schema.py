# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads schema.json: the one place that declares keys, their values and their defaults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from virtwarden.errors import PolicyError

Schema = Mapping[str, Any]


def read(path: Path) -> Schema:
    """The schema, which is trusted like this code: it is installed beside it.

    Raises PolicyError where it is missing or not JSON.
    """
    try:
        schema = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise PolicyError(
            f"the policy's schema cannot be read: {error}",
            where=str(path),
            fix="apt install --reinstall virt-warden",
        ) from None
    if not isinstance(schema, dict):
        raise PolicyError("the policy's schema is not one", where=str(path))
    return schema


def keys(schema: Schema) -> dict[str, Mapping[str, Any]]:
    """The declaration of each dotted key that always has a value."""
    found: dict[str, Mapping[str, Any]] = {}
    for name, declared in schema["properties"].items():
        if name == "domain":
            continue
        table = resolved(schema, declared)
        inner = table.get("properties")
        if is_named(table):
            continue  # it has no name until an admin writes one
        if inner is None:
            found[name] = declared
        else:
            found |= {f"{name}.{key}": item for key, item in inner.items()}
    return found | of_domains_only(schema)


def of_domains_only(schema: Schema) -> dict[str, Mapping[str, Any]]:
    """The keys with a value that only a [[domain]] can set."""
    inside = entry(schema)["properties"].items()
    return {name: declared for name, declared in inside if "default" in declared}


def defaults(schema: Schema) -> dict[str, Any]:
    """The built-in default of each dotted key."""
    return {key: declared["default"] for key, declared in keys(schema).items()}


def entry(schema: Schema) -> Mapping[str, Any]:
    """The schema of one `[[domain]]`."""
    found: Mapping[str, Any] = schema["properties"]["domain"]["items"]
    return found


def named(schema: Schema) -> dict[str, Mapping[str, Any]]:
    """The tables whose keys are the admin's names, each with the schema of what a name holds."""
    found = {}
    for place in (schema["properties"], entry(schema)["properties"]):
        for name, declared in place.items():
            table = resolved(schema, declared)
            if is_named(table):
                found[name] = resolved(schema, table["additionalProperties"])
    return found


def is_named(table: Mapping[str, Any]) -> bool:
    """Whether the keys of a table are names that the admin chooses."""
    return isinstance(table.get("additionalProperties"), dict)


def resolved(schema: Schema, declared: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `$ref` refers to, where there is one; all of ours are in `$defs`."""
    if "$ref" not in declared:
        return declared
    found: Mapping[str, Any] = schema["$defs"][declared["$ref"].removeprefix("#/$defs/")]
    return found

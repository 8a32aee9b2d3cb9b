# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong with one policy file, in words: by the schema, and beyond it."""

from __future__ import annotations

import datetime
import difflib
import ipaddress
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema

from virtwarden.policy.allowances import wrong_with
from virtwarden.policy.destinations import destination
from virtwarden.policy.origins import KeyPath
from virtwarden.policy.schema import Schema, defaults, entry, named
from virtwarden.words import printable

Complaint = tuple[KeyPath, str]
_LONGEST_SHOWN = 60


def complaints(tree: dict[str, Any], schema: Schema) -> list[Complaint]:
    """Everything wrong with a parsed file, each with the path of the key that it is about."""
    found: list[Complaint] = []
    for error in _validator(schema).iter_errors(tree):
        found += _of_schema(error, schema)
    wrong = {path for path, _ in found}
    for path, value in _settings(tree):
        # Only a value in the right form has a meaning to check.
        if not any(path[:length] in wrong for length in range(1, len(path) + 1)):
            found += [(path, text) for text in _beyond_schema(path, value)]
    return list(dict.fromkeys(found))


def _validator(schema: Schema) -> Any:
    draft = jsonschema.Draft202012Validator
    extend: Any = jsonschema.validators.extend
    # JSON Schema accepts 70000.0 as an integer; the code that uses the value would not.
    checker = draft.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    return extend(draft, type_checker=checker)(schema)


def _of_schema(error: Any, schema: Schema) -> Iterator[Complaint]:
    path: KeyPath = tuple(error.absolute_path)
    if "propertyNames" in error.absolute_schema_path:
        path = (*path, error.instance)
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        for key in error.instance:
            if key not in known:
                yield (*path, key), f"unknown key; {_nearest(path, key, list(known), schema)}"
    elif error.validator == "required":
        for key in error.validator_value:
            if key not in error.instance:
                wanted = error.schema["properties"][key]["errorMessage"]
                yield (*path, key), f"it is missing; it must be {wanted}"
    elif error.validator == "enum":
        allowed = ", ".join(shown(item) for item in error.validator_value)
        yield _key(path), f"{shown(error.instance)} is not allowed; allowed: {allowed}"
    else:
        wanted = error.schema["errorMessage"]
        yield _key(path), f"{shown(error.instance)} is not allowed; it must be {wanted}"


def _key(path: KeyPath) -> KeyPath:
    """The path without the index in a list of values, which has no line of its own."""
    is_place = bool(path) and isinstance(path[-1], int) and path[:-1] != ("domain",)
    return path[:-1] if is_place else path


def _nearest(path: KeyPath, key: str, known: list[str], schema: Schema) -> str:
    """The known key that was probably meant."""
    if path[:1] == ("domain",) and (section := _section_with(key, schema)):
        return f"did you mean the one under [domain.{section}]?"
    near = difflib.get_close_matches(key, known, n=1)
    if near:
        return f"did you mean {near[0]}?"
    for dotted in defaults(schema):
        section, _, name = dotted.rpartition(".")
        if name == key:
            place = f"under [{section}]" if section else "above the first [section]"
            return f"did you mean the one {place}, for the whole host?"
        if section == key:
            return f"did you mean [{section}], for the whole host?"
    for table, below in named(schema).items():
        if key == table or key in below["properties"]:
            place = "domain." if table in entry(schema)["properties"] else ""
            return f"did you mean {'' if key == table else 'the one under '}[{place}{table}.NAME]?"
    return "known here: " + ", ".join(known)


def _section_with(key: str, schema: Schema) -> str:
    """In which section of a `[[domain]]` there is a key of this very name; empty if in none."""
    tables = named(schema)
    for section in entry(schema)["properties"]:
        if f"{section}.{key}" in defaults(schema):
            return str(section)
        if section in tables and key in tables[section]["properties"]:
            return f"{section}.NAME"
    return ""


def shown(value: Any) -> str:
    """A value roughly as TOML writes it, short and without terminal control characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = printable(text)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"


def _settings(tree: dict[str, Any]) -> Iterator[tuple[KeyPath, Any]]:
    """The values that are neither tables nor arrays of tables, with their paths."""
    waiting: list[tuple[KeyPath, Any]] = [((), tree)]
    while waiting:
        path, node = waiting.pop()
        if isinstance(node, dict):
            waiting += [((*path, key), inner) for key, inner in node.items()]
        elif path == ("domain",) and isinstance(node, list):
            waiting += [((*path, index), inner) for index, inner in enumerate(node)]
        else:
            yield path, node


def _beyond_schema(path: KeyPath, value: Any) -> list[str]:
    """What is wrong with a value that the schema accepts."""
    values = value if isinstance(value, list) else [value]
    if not all(item.isprintable() for item in values if isinstance(item, str)):
        return [f"{shown(value)} has a character that cannot be shown"]
    check = _CHECKS.get(str(path[-1]))
    return check(values) if check else []


def _check_uid_range(values: list[Any]) -> list[str]:
    lowest, highest = values
    if lowest <= highest:
        return []
    return [f"[{lowest}, {highest}] is empty; the lowest uid comes first, then the highest"]


def _check_listen(values: list[Any]) -> list[str]:
    return [
        f'{shown(value)} is not allowed; it must be an IP address or "unix"'
        for value in values
        if value != "unix" and not _is_address(value)
    ]


def _check_workstations(values: list[Any]) -> list[str]:
    return [found for value in values if (found := _not_a_network(value))]


def _not_a_network(value: str) -> str:
    try:
        ipaddress.ip_network(value)
    except ValueError:
        try:
            meant = ipaddress.ip_network(value, strict=False)
        except ValueError:
            return f"{shown(value)} is not allowed; it must be an IP address or a network"
        return f"{shown(value)} is no network; did you mean {shown(str(meant))}?"
    return ""


def _check_interfaces(values: list[Any]) -> list[str]:
    return [
        f"{shown(value)} is not allowed; it must be an address with its prefix's length, such as"
        " 192.0.2.5/24"
        for value in values
        if "/" not in value or not _parses(ipaddress.ip_interface, value)
    ]


def _check_hosts(values: list[Any]) -> list[str]:
    return [
        f"{shown(value)} is not allowed; it must be an IP address"
        for value in values
        if value and not _is_address(value)
    ]


def _check_destinations(values: list[Any]) -> list[str]:
    return [
        f"{shown(value)} is not allowed; it must be an IP address or a network, and perhaps a port:"
        ' "192.0.2.0/24:3260", "[2001:db8::5]:10809"'
        for value in values
        if not _parses(destination, value)
    ]


def _check_addresses(values: list[Any]) -> list[str]:
    return [
        f"{shown(value)} is not allowed; it must be an IP address or a network such as 192.0.2.0/24"
        for value in values
        if not _is_network(value)
    ]


def _is_network(value: str) -> bool:
    return "%" not in value and _parses(ipaddress.ip_network, value)


def _check_allow(values: list[Any]) -> list[str]:
    return [
        f"{shown(value)} is not allowed: {wrong}"
        for value in values
        if (wrong := wrong_with(value))
    ]


def _check_path(values: list[Any]) -> list[str]:
    return [
        f"{shown(value)} is not allowed; it must be a path without . and .. and //"
        for value in values
        if value.startswith("/") and os.path.normpath(value.removeprefix("/")) != value[1:]
    ]


def _check_until(values: list[Any]) -> list[str]:
    try:
        datetime.date.fromisoformat(values[0])
    except ValueError:
        return [f"{shown(values[0])} is no day of the calendar"]
    return []


def _is_address(value: str) -> bool:
    return _parses(ipaddress.ip_address, value)


def _parses(read: Callable[[str], object], value: str) -> bool:
    try:
        read(value)
    except ValueError:
        return False
    return True


_CHECKS: dict[str, Callable[[list[Any]], list[str]]] = {
    "uid_range": _check_uid_range,
    "listen": _check_listen,
    "admin_workstations": _check_workstations,
    "addresses": _check_addresses,
    "hosts": _check_destinations,
    "management_addresses": _check_interfaces,
    "management_gateway": _check_hosts,
    "management_dns": _check_hosts,
    "allow": _check_allow,
    "luks": _check_path,
    "until": _check_until,
    "file": _check_path,
    "credential": _check_path,
    "clevis": _check_path,
}

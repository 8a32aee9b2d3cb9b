# SPDX-License-Identifier: GPL-2.0-or-later
"""What is told of the policy agrees: the schema, policy.toml, the examples and the reference."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from enum import EnumMeta
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import jsonschema
import pytest

from virtwarden.paths import Paths
from virtwarden.policy import (
    Backend,
    Choice,
    Encryption,
    Exemption,
    KeyKind,
    KeySource,
    Mode,
    Need,
    Rules,
    Sandbox,
    Svirt,
    Switch,
)
from virtwarden.policy.allowances import KINDS, is_well_formed
from virtwarden.policy.compile import compile_policy
from virtwarden.policy.plain import readers
from virtwarden.policy.rules import NAMED
from virtwarden.policy.schema import defaults, entry, keys, named, of_domains_only, read, resolved

REPOSITORY = Path(__file__).parents[2]
POLICY = REPOSITORY / "policy"
SCHEMA = read(POLICY / "schema.json")
SHIPPED = (POLICY / "policy.toml").read_text()
REFERENCE = (REPOSITORY / "docs" / "policy.md").read_text()
READERS = readers(SCHEMA).always
BELOW_NAMES = readers(SCHEMA).below_names
NAMED_KEYS = {f"{table}.NAME.{key}" for table, keys in BELOW_NAMES.items() for key in keys}
EXAMPLES = sorted((POLICY / "examples").glob("*.toml"))


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def uncommented() -> str:
    """policy.toml with its example of a [[domain]] taken at its word: lines of # and no blank."""
    return re.sub(r"^#(?=[^\s#])", "", SHIPPED, flags=re.MULTILINE)


def compiled(tmp_path: Path, text: str) -> Any:
    tmp_path.chmod(0o700)
    policy = tmp_path / "policy.toml"
    policy.write_text(text)
    policy.chmod(0o600)
    paths = Paths(policy=policy, policy_dir=tmp_path / "d", schema=POLICY / "schema.json")
    return compile_policy(paths, os.getuid())


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "type" in node or "enum" in node:
            yield node
        for key, inner in node.items():
            if key != "default":
                yield from nodes(inner)


def test_no_table_of_the_schema_takes_keys_that_it_does_not_know() -> None:
    tables = [node for node in nodes(SCHEMA) if node.get("type") == "object"]
    names = [table for table in tables if "propertyNames" in table]
    assert len(names) == len(BELOW_NAMES)
    assert all("$ref" in table["additionalProperties"] for table in names)
    others = [table for table in tables if table not in names]
    assert len(others) > 6
    assert all(table["additionalProperties"] is False for table in others)


def test_every_value_of_the_schema_can_be_put_into_words() -> None:
    for node in nodes(SCHEMA):
        assert "enum" in node or "errorMessage" in node or node is SCHEMA, node


def test_every_key_of_the_schema_is_described() -> None:
    declared = [
        entry(SCHEMA)["properties"],
        *(d.get("properties", {}) for d in SCHEMA["$defs"].values()),
    ]
    for properties in declared:
        for name, node in properties.items():
            target = SCHEMA["$defs"].get(node.get("$ref", "").removeprefix("#/$defs/"), {})
            assert "description" in node or "description" in target, name


def declared_fields() -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Each key: its dotted name, the type of its field in the code, what the schema declares."""
    for key, declared in keys(SCHEMA).items():
        if key != "managed":
            yield key, get_type_hints(Rules)[key.rpartition(".")[2]], dict(declared)
    for table, below in named(SCHEMA).items():
        for key, declared in below["properties"].items():
            yield f"{table}.NAME.{key}", get_type_hints(NAMED[table])[key], declared


@pytest.mark.parametrize(
    ("hint", "declared"),
    [pytest.param(hint, node, id=key) for key, hint, node in declared_fields()],
)
def test_a_key_of_some_words_has_a_field_of_just_these(hint: Any, declared: dict[str, Any]) -> None:
    words = resolved(SCHEMA, declared).get("enum")
    of_the_field = [*hint] if isinstance(hint, EnumMeta) else [*get_args(hint)]
    if words or get_origin(hint) is Literal:
        assert words == of_the_field


def is_of(hint: Any, value: Any) -> bool:
    """Whether a value is what a field of this type may hold."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind is Literal:
        return value in inner
    if kind is Union or kind is UnionType:
        return any(is_of(each, value) for each in inner)
    if kind is Mapping:
        return all(is_of(inner[1], each) for each in value.values())
    if kind in (tuple, frozenset):
        items = inner if kind is tuple and ... not in inner else inner[:1] * len(value)
        return type(value) is kind and all(map(is_of, items, value)) and len(items) == len(value)
    if is_dataclass(hint):
        fields = get_type_hints(hint).items()
        return type(value) is hint and all(is_of(of, getattr(value, name)) for name, of in fields)
    return type(value) is hint


DISK = '[domain.disks.vda]\nluks = "/dev/vg0/a"\nmapper = "vmw-a"\nkey.ask = 60\n'


def test_every_value_is_of_the_type_that_its_field_declares(tmp_path: Path) -> None:
    text = f'{uncommented()}\n[[domain]]\nmatch = "web-1"\n{DISK}'
    rules = compiled(tmp_path, text).rules_for("web-1")
    assert rules.disks["vda"].key == KeySource("ask", 60)
    assert all([rules.disks, rules.nics, rules.zones])
    assert is_of(Rules, rules)


def test_the_words_of_the_schema_are_those_of_the_code() -> None:
    known = SCHEMA["$defs"]
    assert set(known["mode"]["enum"]) == {mode.value for mode in Mode}
    words = {
        Choice: known["choice"],
        Need: known["need"],
        Switch: known["console"]["properties"]["display"],
        Sandbox: known["sandbox"],
        Svirt: known["mac"]["properties"]["svirt"],
        Backend: known["network"]["properties"]["backend"],
        Exemption: entry(SCHEMA)["properties"]["exceptions"]["items"],
    }
    words[Encryption] = known["storage"]["properties"]["encryption"]
    for literal, node in words.items():
        assert tuple(node["enum"]) == get_args(literal)
    assert tuple(known["disk"]["properties"]["key"]["properties"]) == get_args(KeyKind)


def test_the_defaults_are_themselves_valid() -> None:
    document: dict[str, Any] = {}
    for key, value in defaults(SCHEMA).items():
        section, _, name = key.rpartition(".")
        if key not in of_domains_only(SCHEMA):
            (document.setdefault(section, {}) if section else document)[name] = value
    jsonschema.validate(document, SCHEMA)


def test_policy_toml_says_every_key_with_its_built_in_default() -> None:
    # What only a [[domain]] has, the commented example shows.
    only = of_domains_only(SCHEMA)
    expected = {key: value for key, value in defaults(SCHEMA).items() if key not in only}
    assert flat(tomllib.loads(SHIPPED)) == expected


def test_policy_toml_gives_the_rules_that_no_policy_gives(tmp_path: Path) -> None:
    (tmp_path / "e").mkdir()
    with_file = compiled(tmp_path, SHIPPED)
    without = compiled(tmp_path / "e", "")
    for key in READERS:
        assert with_file.host[key].value == without.host[key].value


def test_every_key_in_policy_toml_is_explained_right_above_it() -> None:
    lines = SHIPPED.splitlines()
    for number, line in enumerate(lines):
        if re.match(r"\w+ = ", line):
            assert lines[number - 1].startswith("# "), line


def test_the_example_of_a_domain_in_policy_toml_works_as_written(tmp_path: Path) -> None:
    rules = compiled(tmp_path, uncommented()).rules_for("web-1")
    assert rules.exceptions == {"qemu-commandline"}
    assert rules.allow == ("usb 046d:c52b", "pci 0000:65:00.0")
    assert rules.listen == ("unix",)
    shown = tomllib.loads(uncommented())["domain"][0]
    assert shown.keys() == entry(SCHEMA)["properties"].keys()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_a_valid_policy(example: Path, tmp_path: Path) -> None:
    assert compiled(tmp_path, example.read_text()).files


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize("key", sorted({*READERS, *NAMED_KEYS, "domain", "match"}))
def test_every_key_has_its_place_in_the_reference(key: str) -> None:
    assert re.search(rf"^### `{re.escape(key)}`$", REFERENCE, re.MULTILINE), key


@pytest.mark.parametrize(("key", "value"), sorted(defaults(SCHEMA).items()))
def test_the_reference_names_every_default(key: str, value: Any) -> None:
    section = REFERENCE.split(f"### `{key}`\n")[1].split("\n#")[0]
    assert f"Default: `{json.dumps(value)}`" in section


def test_the_reference_names_no_key_that_is_not_there() -> None:
    told = set(re.findall(r"^### `(.+)`$", REFERENCE, re.MULTILINE))
    assert told == {*READERS, *NAMED_KEYS, "domain", "match"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_and_policy_toml_show_every_kind_of_allow(kind: str) -> None:
    section = REFERENCE.split("### `allow`\n")[1].split("\n### ")[0]
    told = re.findall(rf"`({kind} [^`]+)`", section)
    assert told
    assert all(is_well_formed(word) for word in told)
    assert re.search(rf'^#   .*"{kind} ', SHIPPED, re.MULTILINE)


def test_the_reference_names_every_word_that_a_value_can_be() -> None:
    for node in nodes(SCHEMA):
        for word in node.get("enum", []):
            assert f'`"{word}"`' in REFERENCE, word

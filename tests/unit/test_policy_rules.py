# SPDX-License-Identifier: GPL-2.0-or-later
"""Which domains are managed, and which rules come out for a name."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtwarden.policy import DiskRules, Entry, KeySource, Mode, Origin, Policy, Rules, Setting
from virtwarden.policy.compile import Layer, merge
from virtwarden.policy.plain import from_plain, readers, to_plain
from virtwarden.policy.rules import NAMED
from virtwarden.policy.schema import defaults, read

SCHEMA = read(Path(__file__).parents[2] / "policy" / "schema.json")
BY = readers(SCHEMA)
READERS = BY.always


def settings(values: Mapping[str, Any], file: str = "f", line: int = 1) -> dict[str, Setting]:
    return {
        key: Setting(BY.reader(key)(value), Origin(file, line)) for key, value in values.items()
    }


def policy(entries: list[tuple[str, dict[str, Any]]] | None = None, **host: Any) -> Policy:
    built_in = {
        key: Setting(READERS[key](value), Origin()) for key, value in defaults(SCHEMA).items()
    }
    made = [Entry(match, settings(own, line=9)) for match, own in entries or []]
    return Policy({**built_in, **settings(host)}, tuple(made), ("f",))


@pytest.mark.parametrize(
    ("globs", "name", "managed"),
    [
        (["*"], "web-1", True),
        ([], "web-1", False),
        (["web-*"], "db-1", False),
        (["*", "!lab-*"], "lab-1", False),
        (["*", "!lab-*"], "web-1", True),
        (["*", "!lab-*", "lab-7"], "lab-7", True),
        (["!lab-*", "*"], "lab-1", True),
        (["Web-*"], "web-1", False),
        (["web-[0-9]"], "web-5", True),
        (["[!a]*"], "b", True),
        (["*"], "line\nbreak", True),
    ],
)
def test_the_last_glob_that_matches_says_whether_a_domain_is_managed(
    globs: list[str], name: str, managed: bool
) -> None:
    assert policy(managed=globs).manages(name) is managed


def test_without_an_entry_the_hosts_rules_hold() -> None:
    rules = policy().rules_for("web-1")
    assert rules.mode is Mode.ENFORCING
    assert rules.uid_range == (70000, 99999)
    assert rules.exceptions == frozenset()


def test_a_later_entry_wins_key_by_key() -> None:
    made = policy(
        entries=[
            ("web-*", {"mode": "permissive", "network.untapped": "allow"}),
            ("*", {"mode": "disabled"}),
            ("db-*", {"mode": "enforcing"}),
        ]
    )
    rules = made.rules_for("web-1")
    assert (rules.mode, rules.untapped) == (Mode.DISABLED, "allow")
    assert made.rules_for("db-1").mode is Mode.ENFORCING
    assert made.rules_for("db-1").untapped == "deny"


def test_lists_of_an_entry_replace_and_are_not_added_up() -> None:
    made = policy(entries=[("a", {"exceptions": ["spice"]}), ("a", {"exceptions": ["emulator"]})])
    assert made.rules_for("a").exceptions == {"emulator"}


def test_every_value_knows_the_line_that_set_it() -> None:
    made = policy(entries=[("a", {"mode": "permissive"})], **{"network.backend": "ebtables"})
    rules = made.rules_for("a")
    assert rules.where("mode") == "f:9"
    assert rules.where("network.backend") == "f:1"
    assert rules.where("console.tls") == "built-in default"
    assert made.where("managed") == "built-in default"


def test_every_key_becomes_a_field_of_rules_and_every_field_has_an_origin() -> None:
    names = {key.rpartition(".")[2] for key in READERS if key != "managed"}
    assert names | NAMED.keys() == {field.name for field in fields(Rules)} - {"origins"}
    assert policy().rules_for("a").origins.keys() == READERS.keys() - {"managed"}


def test_every_key_below_a_name_becomes_a_field_of_what_the_name_stands_for() -> None:
    assert BY.below_names.keys() == NAMED.keys()
    for table, kind in NAMED.items():
        assert BY.below_names[table].keys() == {field.name for field in fields(kind)}


def test_what_is_said_of_a_name_is_put_together_key_by_key() -> None:
    made = policy(
        entries=[
            ("web*", {"disks.vda.luks": "/dev/vg0/a", "disks.vda.key": {"file": "/k"}}),
            ("web1", {"disks.vda.key": {"ask": 60}, "disks.vdb.luks": "/dev/vg0/b"}),
        ]
    )
    rules = made.rules_for("web1")
    assert rules.disks == {
        "vda": DiskRules(luks="/dev/vg0/a", key=KeySource("ask", 60)),
        "vdb": DiskRules(luks="/dev/vg0/b"),
    }
    assert rules.value("disks.vda.luks") == "/dev/vg0/a"
    assert rules.value("network.backend") == rules.backend
    assert rules.where("disks.vda.key") == "f:9"
    assert made.rules_for("web2").disks["vda"].key == KeySource("file", "/k")
    assert made.rules_for("db1").disks == {}


def test_every_origin_is_that_of_a_value() -> None:
    rules = policy(entries=[("a", {"disks.vda.luks": "/dev/vg0/a"})]).rules_for("a")
    assert {key: rules.value(key) for key in rules.origins}


@pytest.mark.parametrize("key", ["disks", "disks.vda", "disks.vda.x", "disks.vda.key.file", "x.y"])
def test_no_other_key_is_read(key: str) -> None:
    with pytest.raises(KeyError):
        BY.reader(key)


def test_a_policy_survives_json_unchanged() -> None:
    keys = ({"file": "/k"}, {"credential": "/k"}, {"clevis": "header"}, {"ask": 5})
    disks = {f"disks.vd{letter}.key": key for letter, key in zip("abcd", keys, strict=True)}
    made = policy(
        entries=[("ü*", {"exceptions": ["spice", "emulator"], "console.listen": ["unix"]} | disks)],
        managed=["*", "!x"],
    )
    assert from_plain(json.loads(json.dumps(to_plain(made))), BY) == made


values = {
    "mode": st.sampled_from(["enforcing", "permissive"]),
    "network.backend": st.sampled_from(["auto", "nftables"]),
    "console.listen": st.lists(st.sampled_from(["unix", "::1"])),
}
layers = st.lists(
    st.tuples(
        st.fixed_dictionaries({}, optional=values),
        st.lists(st.tuples(st.sampled_from("ab"), st.fixed_dictionaries({}, optional=values))),
    )
)


@given(layers)
def test_of_each_key_the_last_value_said_holds(
    said: list[tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]],
) -> None:
    base = {key: Setting(READERS[key](v), Origin()) for key, v in defaults(SCHEMA).items()}
    made = [Layer(base, ())]
    for number, (host, entries) in enumerate(said):
        own = tuple(Entry(m, settings(v, str(number), i)) for i, (m, v) in enumerate(entries))
        made.append(Layer(settings(host, str(number)), own))
    merged, queue = merge(made)
    rules = Policy(merged, queue, ()).rules_for("a")

    spoken = [host for host, _ in said]
    spoken += [own for _, entries in said for match, own in entries if match == "a"]
    for key in values:
        last = [own[key] for own in spoken if key in own][-1:] or [defaults(SCHEMA)[key]]
        assert getattr(rules, key.rpartition(".")[2]) == READERS[key](last[0])


@pytest.mark.parametrize(
    ("declared", "plain", "value"),
    [
        ({"type": "string"}, "a", "a"),
        ({"type": "integer", "minimum": 1}, 5, 5),
        ({"enum": ["on", "off"]}, "on", "on"),
        ({"type": "array", "items": {"type": "string"}}, ["a", "b"], ("a", "b")),
        ({"type": "array", "items": {"enum": ["a", "b"]}}, ["b", "b"], frozenset("b")),
        ({"$ref": "#/$defs/choice"}, "deny", "deny"),
        ({"$ref": "#/$defs/ports"}, [443], (443,)),
    ],
)
def test_a_key_that_the_schema_has_anew_is_read_as_it_is_declared(
    declared: dict[str, Any], plain: Any, value: Any
) -> None:
    schema = copy.deepcopy(dict(SCHEMA))
    schema["$defs"]["network"]["properties"]["brand_new"] = declared
    read_value = readers(schema).reader("network.brand_new")
    assert read_value(plain) == value
    for wrong in (None, {}, [None], [[]], True, 0, "unheard of" if "enum" in declared else 0.5):
        with pytest.raises(ValueError, match=r"not|too"):
            read_value(wrong)

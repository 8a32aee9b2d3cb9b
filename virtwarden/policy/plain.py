# SPDX-License-Identifier: GPL-2.0-or-later
"""Turns a policy into what JSON can hold, and back; what comes back is not trusted.

The schema's declaration of a key decides how a value of TOML or JSON becomes one of Rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from virtwarden.policy.rules import Entry, KeySource, Mode, Origin, Policy, Setting, Settings
from virtwarden.policy.schema import Schema, keys, named, resolved

Reader = Callable[[Any], Any]
"""How the plain value of a key becomes the one in Rules; raises ValueError."""

# What the schema declares under these names has a type of its own in Rules.
_OWN_TYPES: Mapping[str, Reader] = {"#/$defs/mode": Mode}


@dataclass(frozen=True)
class Readers:
    """The readers of all keys: of those that always have a value, and of those below a name.

    The latter are by table; such a key has a value only where the policy sets one.
    """

    always: Mapping[str, Reader]
    below_names: Mapping[str, Mapping[str, Reader]]

    def reader(self, key: str) -> Reader:
        """The reader of a dotted key. Raises KeyError where there is no such key."""
        table, *steps = key.split(".")
        if table not in self.below_names:
            return self.always[key]
        if len(steps) != 2:
            raise KeyError(key)
        return self.below_names[table][steps[1]]

    def is_key(self, dotted: str) -> bool:
        """Whether this is a key with a value of its own, and not a table that holds such keys."""
        try:
            self.reader(dotted)
        except KeyError:
            return False
        return True


def readers(schema: Schema) -> Readers:
    """The readers of all keys that the schema declares."""
    return Readers(
        {key: _reader(schema, declared) for key, declared in keys(schema).items()},
        {
            table: {key: _reader(schema, declared) for key, declared in below["properties"].items()}
            for table, below in named(schema).items()
        },
    )


def _reader(schema: Schema, declared: Mapping[str, Any]) -> Reader:
    if declared.get("$ref") in _OWN_TYPES:
        return _OWN_TYPES[declared["$ref"]]
    form = resolved(schema, declared)
    if "enum" in form:
        return partial(_word, frozenset(form["enum"]))
    return _BY_TYPE[form["type"]](schema, form)


def _reader_of_texts(schema: Schema, form: Mapping[str, Any]) -> Reader:
    return _text


def _reader_of_numbers(schema: Schema, form: Mapping[str, Any]) -> Reader:
    return partial(_number_within, form.get("minimum"), form.get("maximum"))


def _reader_of_lists(schema: Schema, form: Mapping[str, Any]) -> Reader:
    """A set for words, which have no order; a range for two numbers; otherwise a tuple."""
    item = _reader(schema, form["items"])
    if "enum" in resolved(schema, form["items"]):
        return partial(_set, item)
    return partial(_range if form.get("maxItems") == 2 else _tuple, item)


def _reader_of_tables(schema: Schema, form: Mapping[str, Any]) -> Reader:
    """The only table that is one value is KeySource, which says where a key is."""
    kinds = {kind: _reader(schema, declared) for kind, declared in form["properties"].items()}
    return partial(_key_source, kinds)


_BY_TYPE: Mapping[str, Callable[[Schema, Mapping[str, Any]], Reader]] = {
    "string": _reader_of_texts,
    "integer": _reader_of_numbers,
    "array": _reader_of_lists,
    "object": _reader_of_tables,
}


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("not a text")
    return value


def _word(allowed: frozenset[str], value: Any) -> str:
    if _text(value) not in allowed:
        raise ValueError("not one of the words")
    return _text(value)


def _number(value: Any) -> int:
    if type(value) is not int:
        raise ValueError("not a whole number")
    return value


def _number_within(lowest: int | None, highest: int | None, value: Any) -> int:
    number = _number(value)
    if (lowest is not None and number < lowest) or (highest is not None and number > highest):
        raise ValueError("too low or too high")
    return number


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise ValueError("not a list")
    return value


def _tuple(item: Reader, value: Any) -> tuple[Any, ...]:
    return tuple(item(each) for each in _list(value))


def _set(item: Reader, value: Any) -> frozenset[Any]:
    return frozenset(item(each) for each in _list(value))


def _range(item: Reader, value: Any) -> tuple[Any, Any]:
    lowest, highest = _tuple(item, value)
    if lowest > highest:
        raise ValueError("not a range")
    return lowest, highest


def _table(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise ValueError("not a table")
    return value


def _key_source(kinds: Mapping[str, Reader], value: Any) -> KeySource:
    ((kind, said),) = _table(value).items()
    kind_of_key: Any = _word(frozenset(kinds), kind)
    return KeySource(kind_of_key, kinds[kind](said))


def to_plain(policy: Policy) -> dict[str, Any]:
    """The policy in lists, tables, texts and numbers; `from_plain` makes a policy of them again."""
    return {
        "host": _plain_settings(policy.host),
        "entries": [[entry.match, _plain_settings(entry.settings)] for entry in policy.entries],
        "files": list(policy.files),
    }


def _plain_settings(settings: Settings) -> dict[str, list[Any]]:
    return {
        key: [_plain(setting.value), setting.origin.file, setting.origin.line]
        for key, setting in settings.items()
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mode):
        return value.value
    if isinstance(value, KeySource):
        return {value.kind: value.value}
    return sorted(value) if isinstance(value, frozenset) else value


def from_plain(plain: Any, by: Readers) -> Policy:
    """The policy that `to_plain` got. Raises ValueError for anything else."""
    try:
        policy = _policy(_table(plain), by)
    except KeyError as error:
        raise ValueError(f"no such key: {error}") from None
    if {key for key in policy.host if key.partition(".")[0] not in by.below_names} != {*by.always}:
        raise ValueError("not every key is there")
    return policy


def _policy(plain: dict[str, Any], by: Readers) -> Policy:
    entries = []
    for item in _list(plain["entries"]):
        match, settings = _list(item)
        entries.append(Entry(_text(match), _settings(settings, by)))
    files = _tuple(_text, plain["files"])
    return Policy(_settings(plain["host"], by), tuple(entries), files)


def _settings(plain: Any, by: Readers) -> Settings:
    settings = {}
    for key, item in _table(plain).items():
        value, file, line = _list(item)
        settings[key] = Setting(by.reader(key)(value), Origin(_text(file), _number(line)))
    return settings

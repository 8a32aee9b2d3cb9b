# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes one Policy of the policy files: parses, validates and traces each, then merges them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from virtwarden.paths import Paths
from virtwarden.policy import references, source
from virtwarden.policy.origins import KeyPath, Origins, UntraceableError, blamed, trace
from virtwarden.policy.plain import Readers, readers
from virtwarden.policy.problems import InvalidPolicy, Problem
from virtwarden.policy.rules import Entry, Origin, Policy, Setting, Settings
from virtwarden.policy.schema import Schema, defaults
from virtwarden.policy.schema import read as read_schema
from virtwarden.policy.validate import complaints
from virtwarden.words import printable

_AT = re.compile(r" \(at line (\d+), column \d+\)$")
# tomllib's time grows with the square of a key's dots, and a key is on one line.
_MOST_DOTS = 256
_TOML = 'allowed: key = "text", key = 5, key = ["one", "two"], [table], each key and table once'


@dataclass(frozen=True)
class Layer:
    """What one file says."""

    host: Settings
    entries: tuple[Entry, ...]


def compile_policy(paths: Paths, owner: int = 0) -> Policy:
    """The policy as the files say it now, without any cache.

    Raises InvalidPolicy with everything that is wrong in the files, by file and line, and
    PolicyError where a file is not trustworthy or not readable.
    """
    schema = read_schema(paths.schema)
    by = readers(schema)
    layers: list[Layer] = []
    problems: list[Problem] = []
    sources = source.read(paths, owner)
    for item in sources:
        try:
            layers.append(_layer(item, schema, by))
        except InvalidFileError as error:
            problems += sorted(error.problems, key=lambda problem: problem.line)
    if problems:
        raise InvalidPolicy(problems)
    built_in = {
        key: Setting(by.always[key](value), Origin()) for key, value in defaults(schema).items()
    }
    host, entries = merge([Layer(built_in, ()), *layers])
    wrong = references.problems(host, entries)
    if wrong:
        raise InvalidPolicy(wrong)
    return Policy(host, entries, tuple(item.file for item in sources))


def merge(layers: Sequence[Layer]) -> tuple[Settings, tuple[Entry, ...]]:
    """Merge layers: the last value of a key wins, and all `[[domain]]`s stay, in order."""
    host: dict[str, Setting] = {}
    entries: list[Entry] = []
    for layer in layers:
        host.update(layer.host)
        entries += layer.entries
    return host, tuple(entries)


class InvalidFileError(Exception):
    """One file cannot be used; the others are still checked."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__()
        self.problems = problems


def _layer(item: source.Source, schema: Schema, by: Readers) -> Layer:
    text = _text(item)
    tree, origins = _parse(item.file, text)
    wrong = complaints(tree, schema)
    if wrong:
        raise InvalidFileError(
            [
                Problem(item.file, origins.line(path), f"{_dotted(path)}: {complaint}")
                for path, complaint in wrong
            ]
        )
    return _laid_out(item.file, tree, origins, by)


def _text(item: source.Source) -> str:
    text = item.content.decode(errors="replace")
    for number, line_text in enumerate(text.split("\n"), start=1):
        if line_text.count(".") > _MOST_DOTS:
            # The message names no key: to read the key, tomllib would have to parse the line.
            what = f"more than {_MOST_DOTS} dots in one line"
            raise InvalidFileError([Problem(item.file, number, what)])
    try:
        return item.content.decode()
    except UnicodeDecodeError as error:
        line = item.content.count(b"\n", 0, error.start) + 1
        what = "this is not UTF-8 text; it must be saved as such"
        raise _unreadable(item.file, text, what, line) from None


def _parse(file: str, text: str) -> tuple[dict[str, Any], Origins]:
    try:
        return tomllib.loads(text), trace(text)
    except UntraceableError as error:
        raise _unreadable(file, text, str(error), error.line) from None
    except RecursionError:
        raise _unreadable(file, text, "something in here is nested too deeply") from None
    except ValueError as error:
        # tomllib raises these itself; int raises one for a number of too many digits.
        found = _AT.search(str(error))
        line = int(found[1]) if found else None
        what = f"{_AT.sub('', str(error))}; {_TOML}"
        raise _unreadable(file, text, what, line) from None


def _unreadable(file: str, text: str, what: str, line: int | None = None) -> InvalidFileError:
    """The error for a text that is no TOML, with the key that is set there.

    It names this line, or where there is none the line at which the last statement begins.
    """
    begin, path = blamed(text, line or text.rstrip().count("\n") + 1)
    key = _dotted(path)
    return InvalidFileError([Problem(file, line or begin, f"{key}: {what}" if key else what)])


def _dotted(path: KeyPath) -> str:
    """A key in an admin's words; the line tells which `[[domain]]` it is in."""
    return ".".join(printable(step)[:60] for step in path if isinstance(step, str))


def _laid_out(file: str, tree: Mapping[str, Any], origins: Origins, by: Readers) -> Layer:
    """A valid file's tables as flat settings, with their lines."""

    def flat(
        table: Mapping[str, Any], at: KeyPath, prefix: str = ""
    ) -> Iterator[tuple[str, Setting]]:
        for key, value in table.items():
            dotted, path = f"{prefix}{key}", (*at, key)
            if isinstance(value, dict) and not by.is_key(dotted):
                yield from flat(value, path, f"{dotted}.")
            else:
                yield dotted, Setting(by.reader(dotted)(value), Origin(file, origins.line(path)))

    host = {key: value for key, value in tree.items() if key != "domain"}
    entries = []
    for index, item in enumerate(tree.get("domain", [])):
        own = {key: value for key, value in item.items() if key != "match"}
        entries.append(Entry(item["match"], dict(flat(own, ("domain", index)))))
    return Layer(dict(flat(host, ())), tuple(entries))

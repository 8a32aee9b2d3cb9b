# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the line that set each key of a TOML file, without a second TOML parser.

tomllib keeps no lines. But a statement is the shortest run of lines, from where the last one ended,
that tomllib accepts by itself. So tomllib gets the file piece by piece.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

KeyPath = tuple[str | int, ...]

# The policy's own keys are at most six steps deep.
_DEEPEST = 16
# Each try at a statement of many lines parses it from its start. An honest policy is parsed twice
# at most; a file beyond this limit is made to cost time.
_PARSED_LIMIT = 1024 * 1024
# Only an array, an inline table or a string goes on over several lines, and each has its own end.
_MAY_END = re.compile(r"""(?:\]|\}|\"""|''')[ \t]*(?:\#.*)?$""", re.VERBOSE)


class UntraceableError(ValueError):
    """A statement is valid TOML but cannot be traced; `line` is where it begins."""

    def __init__(self, what: str, line: int) -> None:
        super().__init__(what)
        self.line = line


@dataclass(frozen=True)
class Origins:
    """The lines of a file's keys; in a path, an element of an array of tables is a number."""

    lines: Mapping[KeyPath, int]

    def line(self, path: KeyPath) -> int:
        """The line that set what is at this path, or else its parent; 1 where no line did."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return 1


def trace(text: str) -> Origins:
    """The lines of all keys of a text that tomllib has accepted as a whole.

    Raises UntraceableError where keys are nested too deeply or statements are too long.
    """
    lines: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, statement, parsed in _statements(text):
        if statement.lstrip().startswith("["):
            table = _table_of(parsed, counts, number)
            found = [table]
        else:
            found = [table + path for path in _keys(parsed, number)]
        for path in found:
            lines[path] = number
            for length in range(1, len(path)):
                lines.setdefault(path[:length], number)
    return Origins(lines)


def blamed(text: str, line: int) -> tuple[int, KeyPath]:
    """The line where the wrong statement begins, in a text that tomllib refused at this line.

    Also gives the key that the statement sets, or else the table that it is in.
    """
    lines = text.split("\n")[:line]
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    begin = 1
    with suppress(UntraceableError, RecursionError):
        for number, statement, parsed in _statements("\n".join(lines)):
            begin = number
            after = number + statement.count("\n") + 1
            if after > line:
                break
            begin = after
            if statement.lstrip().startswith("["):
                table = _table_of(parsed, counts, number)
    return begin, _subject(lines[begin - 1].strip(), table)


def _subject(statement: str, table: KeyPath) -> KeyPath:
    """The key that the first line of a statement is about; empty where it has none."""
    if not statement or statement.startswith("#"):
        return ()
    if statement.startswith("["):
        return _read_key(statement.partition("#")[0].strip("[] \t"))
    key, equals, _ = statement.partition("=")
    return table + (_read_key(key) if equals else ())


def _read_key(text: str) -> KeyPath:
    """A key in TOML's form, or nothing where this is none."""
    try:
        return next(_keys(tomllib.loads(f"{text} = 0"), 1), ())
    except (ValueError, RecursionError):
        return ()


def _statements(text: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Each statement with the number of its first line; blank lines and comments also count."""
    pending: list[str] = []
    parsed_so_far = 0
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        pending.append(line)
        if len(pending) > 1 and not _MAY_END.search(line):
            continue
        chunk = "\n".join(pending)
        start = number - len(pending) + 1
        parsed_so_far += len(chunk)
        if parsed_so_far > _PARSED_LIMIT:
            raise UntraceableError("this goes on for too many lines", start)
        try:
            parsed = tomllib.loads(chunk)
        except ValueError:
            continue
        yield start, chunk, parsed
        pending = []


def _table_of(parsed: dict[str, Any], counts: dict[KeyPath, int], line: int) -> KeyPath:
    """The path of a header's table: `[[x]]` opens the next element of x, `[x.y]` is in the last."""
    path: KeyPath = ()
    node: Any = parsed
    while node:
        ((key, node),) = node.items()
        path = _deeper(path, key, line)
        if isinstance(node, list):
            counts[path] = counts.get(path, -1) + 1
            return (*path, counts[path])
        if path in counts:
            path = (*path, counts[path])
    return path


def _keys(parsed: dict[str, Any], line: int) -> Iterator[KeyPath]:
    """The paths that one statement sets: several where it is an inline table."""
    waiting: list[tuple[KeyPath, Any]] = [((), parsed)]
    while waiting:
        path, node = waiting.pop()
        if isinstance(node, dict) and node:
            waiting += [(_deeper(path, key, line), inner) for key, inner in node.items()]
        elif path:
            yield path


def _deeper(path: KeyPath, key: str, line: int) -> KeyPath:
    if len(path) >= _DEEPEST:
        raise UntraceableError("this is nested too deeply", line)
    return (*path, key)

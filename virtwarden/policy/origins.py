# SPDX-License-Identifier: GPL-2.0-or-later
"""Which line of a TOML file each key was set on, without a second TOML parser.

tomllib keeps no lines. But a statement is the shortest run of lines, from where the last one ended,
that tomllib accepts by itself: it is handed the file piece by piece.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

KeyPath = tuple[str | int, ...]

# The policy's own keys are six steps deep at most.
_DEEPEST = 16
# Each try at a statement of many lines parses it from its start. An honest policy is parsed
# twice over at most; past this, a file would be made to cost time.
_PARSED_LIMIT = 1024 * 1024
# What goes on over several lines is an array, an inline table or a string, and ends as one.
_MAY_END = re.compile(r"""(?:\]|\}|\"""|''')[ \t]*(?:\#.*)?$""", re.VERBOSE)


class UntraceableError(ValueError):
    """A statement that is valid TOML but not to be followed; `line` is where it begins."""

    def __init__(self, what: str, line: int) -> None:
        super().__init__(what)
        self.line = line


@dataclass(frozen=True)
class Origins:
    """The lines of a file's keys; elements of arrays of tables are steps of a path as numbers."""

    lines: Mapping[KeyPath, int]

    def line(self, path: KeyPath) -> int:
        """The line that set what is at this path, or else what holds it; 1 where nothing did."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return 1


def trace(text: str) -> Origins:
    """The lines of all keys of a text that tomllib has accepted as a whole.

    Raises UntraceableError where keys are nested too deeply or statements go on for too long.
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
    """Of a text that tomllib did not accept at this line: where the statement at fault begins.

    And what it sets, as far as that can be told; else the table it stands in.
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
    """What the first line of a statement is about; nothing where it is none."""
    if not statement or statement.startswith("#"):
        return ()
    if statement.startswith("["):
        return _read_key(statement.partition("#")[0].strip("[] \t"))
    key, equals, _ = statement.partition("=")
    return table + (_read_key(key) if equals else ())


def _read_key(text: str) -> KeyPath:
    """A key as TOML has it, or nothing where this is none."""
    try:
        return next(_keys(tomllib.loads(f"{text} = 0"), 1), ())
    except (ValueError, RecursionError):
        return ()


def _statements(text: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Each statement with the number of its first line; blank lines and comments count as such."""
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
    """The path of a header's table; `[[x]]` opens the next element of x, `[x.y]` is in the last."""
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

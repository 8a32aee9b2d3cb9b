"""Which line of a TOML file each key was set on, without a second TOML parser.

tomllib keeps no lines. But a statement is the shortest run of lines, from where the last one ended,
that tomllib accepts by itself: it is handed the file piece by piece.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
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

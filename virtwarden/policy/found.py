# SPDX-License-Identifier: GPL-2.0-or-later
"""The file of the domains that installation found, and that enforcing mode would not let start.

Installation writes it, and `virt-warden graduate` takes domains out of it. It is a file of the
policy like others, so an admin may edit it too. What they wrote stays: only lines that are known to
be ours are removed, and tomllib must then find the same policy but for that domain.
"""

from __future__ import annotations

import glob
import json
import textwrap
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtwarden.errors import FIX, PolicyError
from virtwarden.policy.origins import Origins, trace

_HEADER = (
    "# Domains that were here when virt-warden was installed and that enforcing mode would refuse.",
    "# Each is permissive: it starts as before, guarded as far as that goes.",
    "# For each: do what stands after `fix:`, then: virt-warden graduate NAME",
    "# Any other domain is enforcing. What you write in policy.toml and in other files wins.",
)
_OURS = "#: "
_PERMISSIVE = 'mode = "permissive"'
_TABLE = "[[domain]]"
_COLUMNS = 96
_TOO_LONG_TO_SAY = "- see: virt-warden check"


@dataclass(frozen=True)
class Found:
    """A domain, and a line for each reason, as refusals are written."""

    name: str
    reasons: tuple[str, ...]


def pattern(name: str) -> str:
    """The glob that matches the domain of this name, and no other.

    A policy file must not have characters that cannot be shown: ? stands for them.
    """
    return "".join(c if c.isprintable() else "?" for c in glob.escape(name))


def patterns(text: str, file: Path) -> list[str]:
    """What its permissive entries match, in order. Raises PolicyError where the text is no TOML."""
    return [entry["match"] for entry in _permissive(_parsed(text, file))]


def added(text: str, found: Iterable[Found], file: Path, limit: int) -> str:
    """The text with these domains too, except those that it has.

    Beyond the limit, in bytes, their reasons are left out. Raises PolicyError where the text is no
    TOML, or was edited so that nothing can be added to it.
    """
    there = patterns(text, file) if text else []
    new = [each for each in found if pattern(each.name) not in there]
    if not new:
        return text
    before = text if text else "\n".join(_HEADER) + "\n"
    made = before + "".join(map(_block, new))
    if len(made.encode()) > limit:
        made = before + "".join(_block(Found(each.name, ())) for each in new)
    wanted = [*there, *(pattern(each.name) for each in new)]
    if not _says(made, lambda tree: [e["match"] for e in _permissive(tree)] == wanted):
        raise _by_hand(file)
    return made


def without(text: str, match: str, file: Path) -> str:
    """The text without the mode of the domains that an entry matches, and nothing else of it.

    What an admin added to the entry stays, and so do their comments. Gives an empty text where
    nothing but ours would be left. Raises PolicyError where this cannot be done line by line.
    """
    before = _parsed(text, file)
    origins, lines = trace(text), text.split("\n")
    for index in range(len(_entries(before)) - 1, -1, -1):
        entry = _entries(before)[index]
        if entry.get("match") == match and _is_permissive(entry):
            start, end = _span(origins, index, len(lines))
            lines[start:end] = _without_ours(lines[start:end], bare=len(entry) == 2)
    after = "\n".join(lines).rstrip("\n") + "\n"
    if not _says(after, lambda tree: tree == _expected(before, match)):
        raise _by_hand(file)
    return after if any(line not in _HEADER for line in lines if line.strip()) else ""


def _block(found: Found) -> str:
    match = json.dumps(pattern(found.name), ensure_ascii=False)  # TOML has JSON's escapes
    said = [line for reason in found.reasons for line in _reason(reason)] or [_TOO_LONG_TO_SAY]
    lines = ("", _TABLE, f"match = {match}", *(_OURS + line for line in said), _PERMISSIVE)
    return "\n".join(lines) + "\n"


def _reason(reason: str) -> list[str]:
    what, _, fix = reason.partition(FIX)
    return [*_wrapped(f"- {what}"), *([f"  fix: {fix}"] if fix else [])]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text, _COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def _parsed(text: str, file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise PolicyError(
            f"it cannot be read: {error}", where=str(file), fix="virt-warden policy check"
        ) from None


def _says(text: str, is_right: Callable[[dict[str, Any]], bool]) -> bool:
    """Whether a text is TOML, and of the right content."""
    try:
        return is_right(tomllib.loads(text))
    except (ValueError, RecursionError):
        return False


def _permissive(tree: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [entry for entry in _entries(tree) if _is_permissive(entry)]


def _entries(tree: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = tree.get("domain", [])
    return found if isinstance(found, list) else []


def _is_permissive(entry: Mapping[str, Any]) -> bool:
    return entry.get("mode") == "permissive" and isinstance(entry.get("match"), str)


def _span(origins: Origins, index: int, count: int) -> tuple[int, int]:
    """Where an entry begins, and where the next statement that is not of it does."""
    own: tuple[str | int, ...] = ("domain", index)
    start = origins.line(own)
    later = [n for path, n in origins.lines.items() if path[:2] != own and n > start]
    return start - 1, min(later, default=count + 1) - 1


def _without_ours(lines: Sequence[str], *, bare: bool) -> list[str]:
    """An entry's lines without the mode; of one that has nothing else, without all that is ours."""

    def is_ours(line: str) -> bool:
        words = line.strip()
        if words.startswith(_OURS.strip()) or words == _PERMISSIVE:
            return True
        return bare and (words == _TABLE or words.startswith("match = "))

    kept = [line for line in lines if not is_ours(line)]
    return kept if any(line.strip() for line in kept) else []


def _expected(before: Mapping[str, Any], match: str) -> dict[str, Any]:
    entries = []
    for entry in _entries(before):
        if entry.get("match") == match and _is_permissive(entry):
            rest = {key: value for key, value in entry.items() if key != "mode"}
            entries += [rest] if len(rest) > 1 else []
        else:
            entries.append(entry)
    rest = {key: value for key, value in before.items() if key != "domain"}
    return {**rest, "domain": entries} if entries else rest


def _by_hand(file: Path) -> PolicyError:
    return PolicyError(
        "it was edited by hand in a way that virt-warden cannot follow, and is left as it is",
        where=str(file),
        fix=f"take `{_PERMISSIVE}` out of the domain's [[domain]] yourself, with an editor",
    )

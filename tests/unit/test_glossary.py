# SPDX-License-Identifier: GPL-2.0-or-later
"""The documents keep to docs/glossary.md: one word for one thing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
GLOSSARY = REPOSITORY / "docs" / "glossary.md"
SCHEMAS = sorted((REPOSITORY / "policy").glob("*schema.json"))
HELD = [
    path
    for path in (
        REPOSITORY / "README.md",
        *sorted((REPOSITORY / "docs").glob("*.md")),
        *sorted((REPOSITORY / "packaging" / "man").glob("*.[58]")),
        REPOSITORY / "policy" / "policy.toml",
        *sorted((REPOSITORY / "policy" / "examples").glob("*.toml")),
        *SCHEMAS,
    )
    if path != GLOSSARY
]


def rows() -> list[list[str]]:
    """The cells of every row of the glossary's tables, without heads and rules."""
    lines = re.findall(r"^\|(.*)\|$", GLOSSARY.read_text(), re.MULTILINE)
    cells = ([cell.strip() for cell in line.split("|")] for line in lines)
    return [row for row in cells if row[-1] != "not used" and set(row[0]) != {"-"}]


def terms() -> list[str]:
    return [term for row in rows() for term in re.findall(r"\*\*(.+?)\*\*", row[0])]


def not_used() -> list[str]:
    return [word for row in rows() for word in re.findall(r'"(.+?)"', row[-1])]


def descriptions(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, inner in node.items():
            if key == "description" and isinstance(inner, str):
                yield inner
            else:
                yield from descriptions(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from descriptions(inner)


def words_of(path: Path) -> str:
    """What a file tells its reader; code and what the program prints, in backticks, is left out."""
    text = path.read_text()
    if path in SCHEMAS:
        text = "\n".join(descriptions(json.loads(text)))
    if path.suffix == ".md":
        text = re.sub(r"^```.*?^```|^    .*?$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`]*`", "", text)


def offences(text: str) -> list[str]:
    """The words in a text that the glossary says are not used, however their line is broken."""
    found = []
    for word in not_used():
        pattern = r"\s+(?:# ?)?".join(map(re.escape, word.split()))
        found += re.findall(rf"(?<![\w-]){pattern}(?![\w-])", text, re.IGNORECASE)
    return found


def test_the_glossary_fixes_every_term_once() -> None:
    assert len(terms()) > 40
    assert len(set(terms())) == len(terms())
    assert {"domain", "guard", "cell", "gate", "enrol", "tap", "breach", "refusal"} <= {*terms()}


def test_no_term_is_a_word_that_is_not_used() -> None:
    assert len(not_used()) > 30
    assert [term for term in terms() if offences(term)] == []


@pytest.mark.parametrize(
    "text", ["it befell a domain", "A VIOLATION.", "# taps that somebody let\n# in", "mend it"]
)
def test_a_word_that_is_not_used_is_found(text: str) -> None:
    assert offences(text)


@pytest.mark.parametrize("text", ["amended", "event=let-in", "a breach", "the tap is admitted"])
def test_a_word_that_is_used_is_none(text: str) -> None:
    assert offences(text) == []


def test_there_is_much_to_hold_to_it() -> None:
    assert len(HELD) > 15
    assert all(len(words_of(path)) > 100 for path in HELD)


@pytest.mark.parametrize("path", HELD, ids=lambda path: path.name)
def test_what_admins_read_keeps_to_the_glossary(path: Path) -> None:
    assert offences(words_of(path)) == []

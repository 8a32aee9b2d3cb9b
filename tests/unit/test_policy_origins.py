# SPDX-License-Identifier: GPL-2.0-or-later
"""Which line each key of a TOML file came from."""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Iterator
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtwarden.policy.origins import KeyPath, UntraceableError, trace

DOCUMENT = """\
# a comment
mode = "enforcing"  # and one more
network.backend = "auto"
managed = [
  "a",  # ]
  "]",
]
[console]
"listen" = ["x"]
text = '''
not = "a key"
[nor a header]
'''
[storage]
inline = {a = 1, b = {c = [
  2,
]}}
[[domain]]
match = "one"
[domain.network]
backend = "ebtables"
[[domain]]
match = "two"
[domain.network]
untapped = "allow"
[[domain.sub]]
x = 1
[[domain.sub]]
x = 2
["quoted.key".'and # this']
y = 1
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("mode",), 2),
        (("network", "backend"), 3),
        (("managed",), 4),
        (("console",), 8),
        (("console", "listen"), 9),
        (("console", "text"), 10),
        (("storage", "inline", "a"), 15),
        (("storage", "inline", "b", "c"), 15),
        (("domain", 0), 18),
        (("domain", 0, "match"), 19),
        (("domain", 0, "network"), 20),
        (("domain", 0, "network", "backend"), 21),
        (("domain", 1), 22),
        (("domain", 1, "match"), 23),
        (("domain", 1, "network", "untapped"), 25),
        (("domain", 1, "sub", 0, "x"), 27),
        (("domain", 1, "sub", 1, "x"), 29),
        (("quoted.key", "and # this", "y"), 31),
        (("console", "listen", 0), 9),
        (("domain", 0, "absent"), 18),
        (("absent",), 1),
    ],
)
def test_each_way_of_writing_a_key_has_its_line(path: KeyPath, line: int) -> None:
    assert trace(DOCUMENT).line(path) == line


def test_lines_are_counted_the_same_with_dos_line_ends() -> None:
    origins = trace(DOCUMENT.replace("\n", "\r\n"))
    assert origins.line(("quoted.key", "and # this", "y")) == 31


def test_what_only_python_takes_for_a_line_end_is_none() -> None:
    assert trace('a = "\u2028"\nb = 1').line(("b",)) == 2


def test_a_table_that_is_named_after_its_child_has_its_own_line() -> None:
    assert trace("[a.b]\nx = 1\n[a]\ny = 2").line(("a",)) == 3


def test_what_is_nested_beyond_all_sense_is_refused() -> None:
    for text in (".".join("a" * 20) + " = 1", "[" + ".".join("a" * 20) + "]"):
        with pytest.raises(UntraceableError) as caught:
            trace("\n" + text)
        assert caught.value.line == 2


def test_a_long_list_one_name_a_line_is_followed() -> None:
    names = "".join(f'  "web-[{number}]*",\n' for number in range(9000))
    assert trace(f"managed = [\n{names}]\nmode = 1").line(("mode",)) == 9003


def test_a_file_made_to_cost_time_is_refused_in_time() -> None:
    text = "a = '''\n" + "]\n" * 120_000 + "'''"
    before = time.process_time()
    with pytest.raises(UntraceableError):
        trace(text)
    assert time.process_time() - before < 30


bare = st.text("abcdefgh0-_", min_size=1, max_size=4)
odd = st.text("ab .#=[]\"'\\é\n", max_size=4)
keys = st.one_of(bare, odd)


def quoted(key: str) -> str:
    """The key as it is written down."""
    if key and all(letter in "abcdefgh0-_" for letter in key):
        return key
    return json.dumps(key, ensure_ascii=False)


scalars = st.one_of(
    st.integers(-99, 99).map(str),
    st.booleans().map(lambda value: str(value).lower()),
    odd.map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.text("ab #=[]\n{}", max_size=12).map(lambda text: f'"""\n{text}\n"""'),
    st.text("ab #=[]\n{}", max_size=12).map(lambda text: f"'''{text}'''"),
)
lists = st.lists(st.one_of(scalars, st.just("[1,\n 2]")), max_size=3).map(
    lambda items: "[ # [\n" + "".join(f"  {item}, # ]\n" for item in items) + "]"
)
inline = st.dictionaries(bare, st.one_of(scalars, lists), max_size=3).map(
    lambda items: "{" + ", ".join(f"{key} = {value}" for key, value in items.items()) + "}"
)
assignments = st.dictionaries(
    st.lists(keys, min_size=1, max_size=3).map(tuple),
    st.one_of(scalars, lists, inline),
    max_size=4,
)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """TOML with all its ways to write; some of it clashes and is no TOML."""
    lines: list[str] = []
    for number in range(draw(st.integers(0, 4))):
        if number:
            name = ".".join(quoted(key) for key in draw(st.lists(keys, min_size=1, max_size=2)))
            lines.append(
                draw(st.sampled_from([f"[{name}] # [", f"[[{name}]]", f"\n # x = 1\n[ {name} ]"]))
            )
        for path, value in draw(assignments).items():
            lines.append(" . ".join(quoted(key) for key in path) + f" = {value} # '''")
    return "\n".join(lines)


def leaves(node: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    if isinstance(node, dict) and node:
        for key, inner in node.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(node, list) and node and all(isinstance(item, dict) for item in node):
        for index, inner in enumerate(node):
            yield from leaves(inner, (*path, index))
    elif path:
        yield path


@settings(max_examples=100, deadline=None)
@given(documents())
def test_every_value_of_a_document_has_a_line_that_names_its_key(text: str) -> None:
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    origins = trace(text)
    lines = text.split("\n")
    for path in leaves(tree):
        name = next(step for step in reversed(path) if isinstance(step, str))
        statement = lines[origins.line(path) - 1]
        # What stands in an inline table of many lines has the line that the table begins on.
        known = [quoted(str(step)) for step in path] if "{" in statement else [quoted(name)]
        assert any(key in statement for key in known), (path, statement)


def test_the_generated_documents_are_not_all_broken() -> None:
    text = dedent(
        """\
        a . "b #" = [ # [
          1, # ]
        ] # '''
        [["]"]] # [
        c = {d = 1} # '''
        """
    )
    assert list(leaves(tomllib.loads(text))) == [("a", "b #"), ("]", 0, "c", "d")]
    assert trace(text).line(("]", 0, "c", "d")) == 5

# SPDX-License-Identifier: GPL-2.0-or-later
"""The forms that texts of the command line and the ticket may have; JSON with only one meaning."""

from __future__ import annotations

import _json  # json wraps it in modules that take long to import
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENCODING = sys.getfilesystemencoding(), "surrogateescape"


def words_of(text: str) -> frozenset[str]:
    return frozenset(text.split())


HEX = frozenset("0123456789abcdef")


def is_text(text: str) -> bool:
    return "\0" not in text


def is_path(text: str) -> bool:
    return text.startswith("/") and is_text(text)


def is_name(text: str) -> bool:
    return bool(text) and is_text(text) and "/" not in text


def is_words(text: str, also: str = "_") -> bool:
    """One or more letters, digits and the other characters that are allowed."""
    return bool(text) and all(char.isalnum() or char in also for char in text)


def is_hex(text: str) -> bool:
    """Whether it is one or more bytes in hexadecimal digits."""
    return bool(text) and len(text) % 2 == 0 and HEX.issuperset(text)


def is_user(text: str) -> bool:
    return is_words(text, "_.-")


def is_uuid(text: str) -> bool:
    """Whether it has the one form that cannot lead to another directory."""
    parts = text.split("-")
    return [*map(len, parts)] == [8, 4, 4, 4, 12] and HEX.issuperset("".join(parts))


def is_mac(text: str) -> bool:
    parts = text.lower().split(":")
    return [*map(len, parts)] == [2] * 6 and HEX.issuperset("".join(parts))


def is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object without duplicate keys: two readers could each take another one of them."""
    if len(fields := dict(pairs)) != len(pairs):
        raise ValueError("a key stands twice")
    return fields


def no_number(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


class Reading:
    """The settings that the scanner of json.JSONDecoder reads."""

    strict = True
    object_hook = None
    object_pairs_hook = staticmethod(unique)
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(no_number)


# typeshed wants the parameters that json passes by position, with other types.
scan_json = _json.make_scanner(Reading)  # type: ignore[arg-type]


def load_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError, RecursionError."""
    text = text.strip(" \t\n\r")
    try:
        value, end = scan_json(text, 0)
    except StopIteration:
        raise ValueError("not JSON") from None
    if end != len(text):
        raise ValueError("more than one JSON value")
    return value


def dump_json(value: Any) -> str:
    """JSON of texts and booleans, lists and objects of them."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{dump_json(k)}: {dump_json(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(dump_json, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else _json.encode_basestring_ascii(value)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Words from outside, made fit to be shown."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with a ? for each character that a terminal would obey or a page could not hold."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def toml(value: str | list[str]) -> str:
    """A text or a list of texts as one can paste it into the policy."""
    import json

    return json.dumps(value, ensure_ascii=False)


def shown(name: str) -> str:
    """A domain's name as one can paste it into a shell, with nothing a terminal would obey."""
    import shlex

    return shlex.quote(printable(name))

# SPDX-License-Identifier: GPL-2.0-or-later
"""What the demo prints: commands, what they said, and whether a promise held. 80 columns."""

from __future__ import annotations

import textwrap
from typing import TextIO

_WIDTH = 80
_INDENT = "   "
_BOLD, _GREEN, _RED, _PLAIN = "\033[1m", "\033[32m", "\033[1;31m", "\033[0m"


class Screen:
    """A terminal, and the count of the promises that were shown on it."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._colours = out.isatty()
        self._scenes = 0
        self.kept: list[str] = []
        self.broken: list[str] = []

    def title(self, text: str) -> None:
        """Begin a scene."""
        self._scenes += 1
        self._print(f"\n{self._coloured(_BOLD, f'{self._scenes}. {text}')}")

    def say(self, text: str) -> None:
        """Tell what is going on."""
        self._print(_wrapped(text, ""))

    def command(self, line: str) -> None:
        """Show a command as one could type it."""
        self._print(_INDENT + self._coloured(_BOLD, f"$ {line}"))

    def output(self, text: str) -> None:
        """Show what a command said; lines that are too long are folded."""
        for line in text.strip("\n").splitlines():
            self._print(_wrapped(line, _INDENT))

    def promise(self, text: str, *, kept: bool) -> None:
        """Say whether a promise was kept, and remember it."""
        (self.kept if kept else self.broken).append(text)
        mark, colour = ("kept", _GREEN) if kept else ("BROKEN", _RED)
        self._print(self._coloured(colour, _wrapped(f"{mark}: {text}", _INDENT)))

    def verdict(self, seconds: float) -> None:
        """Sum up."""
        self._print("")
        for text in self.broken:
            self._print(self._coloured(_RED, _wrapped(f"BROKEN: {text}", "")))
        count = len(self.kept) + len(self.broken)
        how_many = f"{len(self.kept)} of {count}" if self.broken else f"All {count}"
        self.say(f"{how_many} promises kept, in {seconds:.0f} seconds.")

    def _coloured(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colours else text

    def _print(self, text: str) -> None:
        print(text, file=self._out, flush=True)


def _wrapped(text: str, indent: str) -> str:
    folded = textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        replace_whitespace=False,
        break_on_hyphens=False,
    )
    return "\n".join(folded)

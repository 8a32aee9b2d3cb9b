# SPDX-License-Identifier: GPL-2.0-or-later
"""The audit for a terminal: what is wrong, the worst first, each with its fix."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from virtwarden.audit.item import Item, State
from virtwarden.audit.report import Report

_WIDTH = 80


def render(report: Report) -> str:
    """The report, a paragraph for each item that is bad or unknown, and a last line that counts."""
    return "\n".join([*_lines(report), _summary(report)]) + "\n"


def _lines(report: Report) -> Iterator[str]:
    for item in report.amiss:
        word = item.severity.word.upper() if item.state is State.BAD else "UNKNOWN"
        yield f"{word}  {item.subject}: {item.title}  [{item.id}]"
        yield from _paragraph("seen: ", item.seen)
        yield from _paragraph("why:  ", item.why)
        if item.fix:
            # Not folded: it is there to be pasted.
            yield f"  fix:  {item.fix}"
        yield ""
    for item in report.items:
        if item.state is State.WAIVED:
            yield from _waived(item)


def _waived(item: Item) -> Iterator[str]:
    yield f"WAIVED  {item.subject}: {item.title}  [{item.id}]"
    yield from _paragraph("seen: ", item.seen)
    yield from _paragraph("by:   ", item.waiver)
    yield ""


def _paragraph(label: str, words: str) -> list[str]:
    return textwrap.wrap(
        words,
        _WIDTH,
        initial_indent=f"  {label}",
        subsequent_indent=" " * 8,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _summary(report: Report) -> str:
    counts = ", ".join(f"{report.count(state)} {state.value}" for state in State)
    return f"{report.host}, {report.made_at}: {len(report.items)} items: {counts}"

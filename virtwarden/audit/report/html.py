# SPDX-License-Identifier: GPL-2.0-or-later
"""The audit for an auditor: one HTML page that loads nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lxml import html
from lxml.builder import E  # type: ignore[import-not-found]  # lxml-stubs has no builder

from virtwarden.audit.item import Item, State
from virtwarden.audit.report import Report

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem;
  color: #1b1f24; background: #fff; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.when { color: #57606a; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem;
  border-bottom: 1px solid #d8dee4; }
th { font-weight: 600; white-space: nowrap; }
article { border-left: 4px solid #8c959f; padding: .1rem 0 .1rem 1rem; margin: 1.2rem 0; }
article h3 { font-size: 1rem; margin: 0 0 .3rem; }
article p { margin: .2rem 0; }
.critical { border-color: #a40e26; } .high { border-color: #cf222e; }
.medium { border-color: #d4a72c; } .low { border-color: #54aeff; }
.word { font-size: .75rem; font-weight: 700; text-transform: uppercase; letter-spacing: .04em;
  padding: .1rem .4rem; border: 1px solid currentColor; border-radius: .3rem; margin-right: .5rem; }
code { font: 13px/1.5 ui-monospace, monospace; background: #f6f8fa; padding: .15rem .35rem;
  border-radius: .25rem; overflow-wrap: anywhere; }
@media print { article { break-inside: avoid; } }
"""


def render(report: Report) -> str:
    """The page: a summary, what is amiss with its fix, what is waived, all that was looked at."""
    title = f"virt-warden audit of {report.host}"
    page = E.html(
        E.head(
            E.meta(charset="utf-8"),
            E.meta(name="viewport", content="width=device-width, initial-scale=1"),
            E.title(title),
            E.style(_STYLE),
        ),
        E.body(
            E.h1(title),
            E.p(f"{report.made_at}, virt-warden {report.version}", {"class": "when"}),
            _summary(report),
            E.h2("What is wrong"),
            *(_article(item) for item in report.amiss),
            *([] if report.amiss else [E.p("Nothing.")]),
            *_waived(report),
            E.h2("All items"),
            _table(
                ("State", "Item", "Subject", "Seen"),
                [(i.state.value, i.title, i.subject, i.seen) for i in report.items],
            ),
        ),
        lang="en",
    )
    return "<!DOCTYPE html>\n" + str(html.tostring(page, encoding="unicode", pretty_print=True))


def _summary(report: Report) -> Any:
    counts = [(state.value, str(report.count(state))) for state in State]
    return _table(("State", "Items"), counts)


def _article(item: Item) -> Any:
    word = item.severity.word if item.state is State.BAD else "unknown"
    return E.article(
        E.h3(E.span(word, {"class": "word"}), f"{item.subject}: {item.title}"),
        E.p(f"Seen: {item.seen}"),
        E.p(item.why),
        *([E.p("Fix: ", E.code(item.fix))] if item.fix else []),
        E.p(E.code(item.id)),
        {"class": item.severity.word if item.state is State.BAD else "unknown"},
    )


def _waived(report: Report) -> list[Any]:
    waived = [item for item in report.items if item.state is State.WAIVED]
    if not waived:
        return []
    rows = [(item.title, item.subject, item.seen, item.waiver) for item in waived]
    return [E.h2("Waived"), _table(("Item", "Subject", "Seen", "Waiver"), rows)]


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Any:
    return E.table(
        E.thead(E.tr(*(E.th(head) for head in heads))),
        E.tbody(*(E.tr(*(E.td(cell) for cell in row)) for row in rows)),
    )

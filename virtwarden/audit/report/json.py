# SPDX-License-Identifier: GPL-2.0-or-later
"""For programs: by /usr/share/virt-warden/audit.schema.json."""

from __future__ import annotations

import json
from typing import Any

from virtwarden.audit.item import Item, State
from virtwarden.audit.report import Report

_FORMAT = 1


def render(report: Report) -> str:
    """The report as one JSON object."""
    return json.dumps(
        {
            "format": _FORMAT,
            "host": report.host,
            "version": report.version,
            "made_at": report.made_at,
            "exit_code": report.exit_code,
            "summary": {state.value: report.count(state) for state in State},
            "items": [_plain(item) for item in report.items],
        },
        indent=2,
    )


def _plain(item: Item) -> dict[str, Any]:
    return {
        "id": item.id,
        "subject": item.subject,
        "severity": item.severity.word,
        "state": item.state.value,
        "title": item.title,
        "seen": item.seen,
        "why": item.why,
        "fix": item.fix,
        "waiver": item.waiver,
    }

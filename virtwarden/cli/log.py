# SPDX-License-Identifier: GPL-2.0-or-later
"""`virt-warden log`: what happened to a domain's cell, from the systemd journal."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from virtwarden import log
from virtwarden.audit.events import DENIED, entries
from virtwarden.paths import Paths
from virtwarden.words import printable

_KEPT = ("DOMAIN_", "VIRT_WARDEN_", "MESSAGE", "PRIORITY")
_SHOWN_ELSEWHERE = frozenset({"VIRT_WARDEN_EVENT", "DOMAIN_NAME", "DOMAIN_UUID"})


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="one JSON object a line, with all fields"
    )
    parser.add_argument(
        "--event", choices=sorted([*log.EVENTS, DENIED]), action="append", help="only these events"
    )
    parser.add_argument("domain", nargs="?", metavar="DOMAIN", help="by name or UUID; default: all")


def run(options: argparse.Namespace, paths: Paths) -> int:
    """Print the events, the oldest first."""
    for entry in entries(options.domain, options.event or []):
        print(json.dumps(_plain(entry)) if options.json else _line(entry))
    return 0


def _plain(entry: Mapping[str, Any]) -> dict[str, Any]:
    fields = {key: str(value) for key, value in entry.items() if key.startswith(_KEPT)}
    return {"time": entry["__REALTIME_TIMESTAMP"].isoformat(), **fields}


def _line(entry: Mapping[str, Any]) -> str:
    """`2026-11-25 03:10:22 web01 refused op=prepare reason=…`, as a terminal may show it."""
    details = " ".join(
        f"{key.removeprefix('VIRT_WARDEN_').lower()}={value}"
        for key, value in sorted(entry.items())
        if key.startswith("VIRT_WARDEN_") and key not in _SHOWN_ELSEWHERE
    )
    when = entry["__REALTIME_TIMESTAMP"].strftime("%Y-%m-%d %H:%M:%S")
    words = [when, entry.get("DOMAIN_NAME", "-"), entry.get("VIRT_WARDEN_EVENT", "-"), details]
    return printable("  ".join(str(word) for word in words)).rstrip()

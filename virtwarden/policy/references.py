# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong with a policy as a whole: names that do not exist, zones that overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from virtwarden.policy.problems import Problem
from virtwarden.policy.rules import Entry, Setting, Settings


def problems(host: Settings, entries: Sequence[Entry]) -> list[Problem]:
    """All problems, in the order of the files."""
    zones = _zones(host)
    found = [*_unknown_zones(zones, [host, *(entry.settings for entry in entries)])]
    found += _bad_zones(zones)
    return sorted(found, key=lambda problem: (problem.file, problem.line))


def _zones(host: Settings) -> dict[str, dict[str, Setting]]:
    zones: dict[str, dict[str, Setting]] = {}
    for key, setting in host.items():
        table, *steps = key.split(".")
        if table == "zones":
            zones.setdefault(steps[0], {})[steps[1]] = setting
    return zones


def _unknown_zones(
    zones: dict[str, dict[str, Setting]], layers: Sequence[Settings]
) -> Iterator[Problem]:
    known = ", ".join(sorted(zones)) or "none"
    for settings in layers:
        for key, setting in settings.items():
            if key.rpartition(".")[2] != "zone":
                continue
            for name in (setting.value,) if isinstance(setting.value, str) else setting.value:
                if name not in zones:
                    text = f"{key}: there is no [zones.{name}]; there are: {known}"
                    yield _problem(setting, text)


def _bad_zones(zones: dict[str, dict[str, Setting]]) -> Iterator[Problem]:
    seen: dict[tuple[str, str], list[str]] = {}
    for name, zone in zones.items():
        if not (_value(zone, "bridges", ()) or _value(zone, "networks", ())):
            first = next(iter(zone.values()))
            yield _problem(first, f"zones.{name}: it must have bridges or networks")
        for kind in ("bridges", "networks"):
            for place in _value(zone, kind, ()):
                others = seen.setdefault((kind, place), [])
                for other in others:
                    if kind == "networks" or not _told_apart(zone, zones[other]):
                        text = f"zones.{name}: {place} is one of zone {other}'s {kind} already"
                        yield _problem(zone[kind], text)
                others.append(name)


def _told_apart(one: dict[str, Setting], other: dict[str, Setting]) -> bool:
    """Whether two zones may share a bridge: a VLAN-aware one, where each has its own VLAN."""
    vlans = {_value(zone, "vlan", 0) for zone in (one, other)}
    return len(vlans) == 2 and 0 not in vlans


def _value(zone: dict[str, Setting], key: str, default: Any) -> Any:
    return zone[key].value if key in zone else default


def _problem(setting: Setting, text: str) -> Problem:
    return Problem(setting.origin.file, setting.origin.line, text)

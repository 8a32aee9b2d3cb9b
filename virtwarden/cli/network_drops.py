# SPDX-License-Identifier: GPL-2.0-or-later
"""`virt-warden network drops`: what guests tried to send and may not."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime

from virtwarden import gate
from virtwarden.cli.terminal.table import print_table
from virtwarden.drops import Drops
from virtwarden.libvirtd.connection import all_domains, connected, find
from virtwarden.paths import Paths
from virtwarden.words import printable

_FOLLOW_SECONDS = 1
_HEADS = ("DOMAIN", "NIC", "PROMISE", "FRAMES", "LAST")


def run(paths: Paths, options: argparse.Namespace) -> int:
    """Print the drops, of the named domains or of all, the latest first."""
    with connected() as connection:
        chosen = [find(connection, name) for name in options.domains] or all_domains(connection)
        names = {domain.UUIDString(): domain.name() for domain in chosen}
    found = _of(gate.dropped(paths), names, only=bool(options.domains))
    if options.json:
        print(json.dumps([_plain(each, names) for each in found], indent=2))
    elif options.follow:
        _follow(paths, names, found, only=bool(options.domains))
    elif found:
        print_table([_HEADS, *(_row(each, names) for each in found)])
    else:
        print("No frame was dropped since the host booted.")
    return 0


def _of(found: list[Drops], names: Mapping[str, str], *, only: bool) -> list[Drops]:
    """The drops of these domains; a domain that is gone has no name, and is one of all."""
    return [each for each in found if not only or each.domain in names]


def _follow(paths: Paths, names: Mapping[str, str], former: list[Drops], *, only: bool) -> None:
    print("  ".join(_HEADS), flush=True)
    try:
        while True:
            time.sleep(_FOLLOW_SECONDS)
            found = _of(gate.dropped(paths), names, only=only)
            for each in sorted(set(found) - set(former), key=lambda each: each.last):
                print("  ".join(_row(each, names)), flush=True)
            former = found
    except KeyboardInterrupt:
        return


def _row(each: Drops, names: Mapping[str, str]) -> tuple[str, ...]:
    name = printable(names.get(each.domain, each.domain))
    return name, each.nic, each.promise, str(each.frames), _when(each).replace("T", " ")[:19]


def _plain(each: Drops, names: Mapping[str, str]) -> dict[str, object]:
    kept = {key: value for key, value in asdict(each).items() if not key.startswith("told")}
    name = names.get(each.domain, "")
    return {**kept, "domain": name, "uuid": each.domain, "last": _when(each)}


def _when(each: Drops) -> str:
    return datetime.fromtimestamp(each.last).astimezone().isoformat(timespec="seconds")

# SPDX-License-Identifier: GPL-2.0-or-later
"""`virt-warden luks status`: how each encrypted disk stands."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict

import libvirt

from virtwarden.cli.terminal.table import print_table
from virtwarden.domain.model import read
from virtwarden.libvirtd.connection import all_domains, connected, find, inactive_xml
from virtwarden.luks.standing import Standing, standings
from virtwarden.paths import Paths
from virtwarden.policy import Rules, load


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("domains", nargs="*", metavar="DOMAIN", help="default: all")


def run(options: argparse.Namespace, paths: Paths) -> int:
    """Gives 1 where a container is open that should not be, or cannot be read."""
    policy = load(paths)
    with connected() as connection:
        chosen = [find(connection, name) for name in options.domains] or all_domains(connection)
        found = [
            standing
            for domain in chosen
            for standing in _of(paths, policy.rules_for(domain.name()), domain)
        ]
    if options.json:
        print(json.dumps([asdict(standing) for standing in found], indent=2))
    else:
        _print(found)
    return int(any(standing.problem for standing in found))


def _of(paths: Paths, rules: Rules, domain: libvirt.virDomain) -> Iterator[Standing]:
    runs = bool(domain.isActive())
    xml = str(domain.XMLDesc(0)).encode() if runs else inactive_xml(domain)
    return standings(paths, rules, read(xml), runs=runs)


def _print(standings: list[Standing]) -> None:
    rows = [("DOMAIN", "DISK", "STATE", "SINCE", "CIPHER", "KEY", "CONTAINER")]
    rows += [
        (s.domain, s.disk, s.state, _when(s.since), s.cipher, s.key, s.container) for s in standings
    ]
    print_table(rows)
    for standing in standings:
        if standing.problem:
            print(f"! {standing.domain} {standing.disk}: {standing.problem}")


def _when(since: int | None) -> str:
    return "-" if since is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(since))

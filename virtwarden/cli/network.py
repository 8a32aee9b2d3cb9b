# SPDX-License-Identifier: GPL-2.0-or-later
"""`virt-warden network`: the gate and the filters, and the network of the host itself."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

import libvirt

from virtwarden import gate
from virtwarden.changes import restoring
from virtwarden.cli import network_drops
from virtwarden.errors import WardenError
from virtwarden.libvirtd import admission
from virtwarden.libvirtd.connection import connected, find
from virtwarden.paths import Paths
from virtwarden.policy import load
from virtwarden.watch import former


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    admit = actions.add_parser(
        "admit", help="filter and admit NICs that were attached to running domains"
    )
    admit.add_argument("domains", nargs="*", metavar="DOMAIN", help="default: all")
    actions.add_parser("restore", help="restore all rules on what VMs send, after a flush")
    dropped = actions.add_parser(
        "drops", help="how many frames of each NIC were dropped, by promise, since the host booted"
    )
    dropped.add_argument("domains", nargs="*", metavar="DOMAIN", help="default: all")
    how = dropped.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="for programs")
    how.add_argument("--follow", action="store_true", help="print more as they come, until Ctrl-C")
    check = actions.add_parser("check", help="compare the host's own network with the policy's")
    check.add_argument("--json", action="store_true", help="for programs")
    render = actions.add_parser(
        "render", help="print files for the host's network; changes nothing"
    )
    render.add_argument("--format", choices=("networkd", "ifupdown", "netplan"), required=True)


def run(options: argparse.Namespace, paths: Paths) -> int:
    if options.action == "restore":
        former.note(paths)
        restored = restoring.restore(paths)
        print(f"gate and filters are up; {restored.taps} taps are admitted")
        print(f"{restored.users} VMs are kept from the host's own network")
        print(f"the consoles of {restored.consoles} VMs are limited to their workstations")
        return 0
    if options.action == "check":
        return _check(paths, as_json=options.json)
    if options.action == "render":
        return _render(paths, options.format)
    if options.action == "drops":
        return network_drops.run(paths, options)
    return _admit(paths, options.domains)


def _check(paths: Paths, *, as_json: bool) -> int:
    """Print what is wrong with the host's network. Gives 1 where anything is, else 0."""
    from virtwarden.hostnet import checks, plan, seen

    wanted = plan.read(load(paths))
    found = checks.findings(wanted, seen.look())
    if as_json:
        print(json.dumps([asdict(finding) for finding in found], indent=2))
        return int(bool(found))
    for finding in found:
        print(finding)
    if not found:
        zones = sum(len(bridge.zones) for bridge in wanted.bridges)
        print(f"The host's network is as the policy says, with {zones} zones.")
    return int(bool(found))


def _render(paths: Paths, style: str) -> int:
    from virtwarden.hostnet import plan, render

    for path, text in render.FORMATS[style](plan.read(load(paths))).items():
        print(f"# ---- {path}\n{text}")
    return 0


def _admit(paths: Paths, names: list[str]) -> int:
    """Admit all taps that may be admitted; a refused domain does not stop the others."""
    policy = load(paths, store=True)
    failed = False
    with connected() as connection:
        active = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        for domain in [find(connection, name) for name in names] if names else active:
            try:
                for tap in admission.admit(paths, policy, domain):
                    print(f"{domain.name()}: {tap} is admitted")
            except WardenError as error:
                print(f"virt-warden: {domain.name()}: {error}", file=sys.stderr)
                failed = True
    for tap in gate.admit_foreign(paths, policy.host["foreign_taps"].value):
        print(f"{tap} is admitted (foreign tap)")
    return int(failed)

# SPDX-License-Identifier: GPL-2.0-or-later
"""`virt-warden luks load`: libvirt gets the keys of disks that QEMU decrypts, and forgets them."""

from __future__ import annotations

import argparse

import libvirt

from virtwarden.cli.terminal.agent import answering_here
from virtwarden.cli.terminal.for_each import for_each
from virtwarden.domain.model import Disk, read
from virtwarden.errors import HostError
from virtwarden.libvirtd import secrets
from virtwarden.libvirtd.connection import find, inactive_xml, persistent
from virtwarden.luks.containers import encrypted_by_qemu, key_place, purpose
from virtwarden.paths import Paths
from virtwarden.policy import Rules, load
from virtwarden.system import keys
from virtwarden.system.keys import Place


def arguments(parser: argparse.ArgumentParser) -> None:
    whom = parser.add_mutually_exclusive_group(required=True)
    whom.add_argument("--all", action="store_true", help="all domains that the policy manages")
    whom.add_argument("domains", nargs="*", default=[], metavar="DOMAIN", help="by name or UUID")


def run(options: argparse.Namespace, paths: Paths) -> int:
    policy = load(paths, store=True)

    def load_one(connection: libvirt.virConnect, domain: libvirt.virDomain) -> str:
        known = read(inactive_xml(domain))
        rules = policy.rules_for(known.name)
        disks = [disk for disk in known.disks if encrypted_by_qemu(disk)]
        for disk in disks:
            place = _place(rules, disk, purpose(known, disk.target))
            with answering_here():
                key = keys.fetch(place)
            secrets.load(connection, disk, key)
        if not disks:
            return "has no disk that QEMU decrypts"
        return f"can be started: libvirt has the key of {', '.join(disk.target for disk in disks)}"

    def chosen(connection: libvirt.virConnect) -> list[libvirt.virDomain]:
        if not options.all:
            return [find(connection, name) for name in options.domains]
        managed = [d for d in persistent(connection) if policy.manages(d.name())]
        return [d for d in managed if any(map(encrypted_by_qemu, read(inactive_xml(d)).disks))]

    return for_each(chosen, load_one)


def _place(rules: Rules, disk: Disk, purpose: str) -> Place:
    said = rules.disks.get(disk.target)
    place = key_place(said.key if said else None, disk.path, purpose)
    if place is None:
        raise HostError(
            f"the policy names no key for disk {disk.target}",
            fix=f"add key.file, key.credential, key.clevis or key.ask below"
            f" [domain.disks.{disk.target}] (docs/luks.md)",
        )
    return place

# SPDX-License-Identifier: GPL-2.0-or-later
"""`virt-warden luks format`: a new encrypted volume for a disk of a domain."""

from __future__ import annotations

import argparse
import re

from virtwarden.cli.terminal.dialogue import Terminal
from virtwarden.domain.model import Domain, read
from virtwarden.errors import HostError
from virtwarden.libvirtd.connection import connected, find, inactive_xml
from virtwarden.luks import creation
from virtwarden.paths import Paths
from virtwarden.policy import load
from virtwarden.system import files
from virtwarden.words import shown

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("domain", metavar="DOMAIN", help="by name or UUID")
    parser.add_argument("disk", metavar="DISK", help="the disk's target, such as vdb")
    parser.add_argument(
        "--size",
        type=_bytes,
        default=0,
        metavar="SIZE",
        help="size of the file to make, such as 20G",
    )
    parser.add_argument("--force", action="store_true", help="overwrite a volume that is not empty")


def _bytes(text: str) -> int:
    """A size with one of qemu-img's units."""
    found = re.fullmatch(r"([1-9][0-9]*)([KMGT]?)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 20G")
    return int(found[1]) * _UNITS[found[2]]


def run(options: argparse.Namespace, paths: Paths) -> int:
    policy = load(paths, store=True)
    with connected() as connection:
        domain = read(inactive_xml(find(connection, options.domain)))
    said = creation.rules_of(policy.rules_for(domain.name), domain, options.disk)
    place = creation.place_of(said, domain, options.disk)
    if not options.size and files.look(said.luks).leaf is None:
        raise HostError(
            "it is not there", where=said.luks, fix="make a file (--size) or a volume (lvcreate)"
        )
    creation.make(paths, place, options.size, Terminal(), blank=not options.force)
    print(_what_next(domain, options.disk, creation.node(said, domain, options.disk)))
    return 0


def _what_next(domain: Domain, target: str, node: str) -> str:
    if any(disk.target == target and disk.path == node for disk in domain.disks):
        return f"{domain.name} opens it at its next start."
    return (
        f"Give it to the domain: virsh attach-disk {shown(domain.name)} {node} {target}"
        " --sourcetype block --subdriver raw --config"
    )

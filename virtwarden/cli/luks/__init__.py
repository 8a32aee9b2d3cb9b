# SPDX-License-Identifier: GPL-2.0-or-later
"""`virt-warden luks`: encrypted disks, made, filled, unlocked for QEMU, and looked at."""

from __future__ import annotations

import argparse
import importlib

from virtwarden.cli.main import Command
from virtwarden.paths import Paths

ACTIONS = {
    "status": "list encrypted disks: container, cipher, key, state and since when",
    "format": "make a new encrypted volume for a domain's disk",
    "adopt": "copy an existing disk of a domain into a new container",
    "load": "give libvirt the keys of disks that QEMU decrypts",
}
"""Each with its help; the module of its name in virtwarden/cli/luks answers it."""


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, purpose in ACTIONS.items():
        subparser = actions.add_parser(name, help=purpose, description=purpose)
        _module(name).arguments(subparser)


def run(options: argparse.Namespace, paths: Paths) -> int:
    return _module(options.action).run(options, paths)


def _module(name: str) -> Command:
    module: Command = importlib.import_module(f"virtwarden.cli.luks.{name}")
    return module

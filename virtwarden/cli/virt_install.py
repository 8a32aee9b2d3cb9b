# SPDX-License-Identifier: GPL-2.0-or-later
"""`virt-warden virt-install`: virt-install(1), whose domains are guarded from the first boot.

virt-install starts a new domain before libvirt keeps any XML of it (virDomainCreateXML), and keeps
another one for the boots after the installation. So an admin has no moment to enrol it. This
command enrols whatever virt-install gives to libvirt on its way there, with any options.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path

from virtwarden.errors import HostError
from virtwarden.libvirtd import interception
from virtwarden.paths import Paths
from virtwarden.policy import load

_PROGRAM = Path("/usr/bin/virt-install")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.prefix_chars = ""  # every word is virt-install's, --help too
    parser.add_argument("words", nargs=argparse.REMAINDER, help="see virt-install(1)")


def run(options: argparse.Namespace, paths: Paths) -> int:
    """Ends as virt-install does."""
    if not _PROGRAM.exists():
        raise HostError(f"{_PROGRAM} is not there", fix="apt install virtinst")
    interception.enrol_all(paths, load(paths, store=True), _warn)
    sys.argv = [str(_PROGRAM), *options.words]
    runpy.run_path(str(_PROGRAM), run_name="__main__")
    return 0


def _warn(line: str) -> None:
    print(f"virt-warden: {line}", file=sys.stderr)

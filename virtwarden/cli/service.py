# SPDX-License-Identifier: GPL-2.0-or-later
"""`virt-warden service`: what virt-warden.service runs."""

from __future__ import annotations

import argparse

from virtwarden.paths import Paths
from virtwarden.service import main as service


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command has no arguments."""


def run(options: argparse.Namespace, paths: Paths) -> int:
    """Runs until SIGTERM; gives 1 where one of its processes died."""
    return service.run(paths)

# SPDX-License-Identifier: GPL-2.0-or-later
"""One domain after the other, and a line for each."""

from __future__ import annotations

import sys
from collections.abc import Callable

import libvirt

from virtwarden.errors import WardenError
from virtwarden.libvirtd.connection import each


def for_each(
    chosen: Callable[[libvirt.virConnect], list[libvirt.virDomain]],
    act: Callable[[libvirt.virConnect, libvirt.virDomain], str],
) -> int:
    """Do it to each, and print what came of it. Gives 1 where it failed with any, else 0."""
    failed = False
    for name, outcome in each(chosen, act):
        if isinstance(outcome, WardenError):
            print(f"virt-warden: {name}: {outcome}", file=sys.stderr)
            failed = True
        else:
            print(f"{name} {outcome}")
    return int(failed)

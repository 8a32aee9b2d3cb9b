# SPDX-License-Identifier: GPL-2.0-or-later
"""Pending security updates of QEMU, libvirt, the kernel and virt-warden."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from virtwarden.audit.item import Check, Item, Severity
from virtwarden.errors import WardenError
from virtwarden.system import packages

UPDATES = Check(
    "host.updates.pending",
    Severity.HIGH,
    "No update of QEMU, libvirt, the kernel or virt-warden is pending",
    "Updates of QEMU, libvirt, the kernel or virt-warden are pending",
    "The flaws that an update fixes are public from the day it comes out.",
    "apt update && apt upgrade; a running VM keeps its old QEMU until a stop and a start",
)
FLAWS = Check(
    "host.updates.flaws",
    Severity.HIGH,
    "QEMU, libvirt, the kernel and virt-warden have no flaw with a fix",
    "QEMU, libvirt, the kernel or virt-warden has a flaw with a fix",
    "debsecan lists flaws for which this release has a fix.",
    "apt update && apt upgrade",
)
REBOOT = Check(
    "host.updates.reboot",
    Severity.MEDIUM,
    "The newest installed kernel runs",
    "A newer kernel is installed than the one that runs",
    "An update of the kernel works only after a reboot.",
    "migrate or stop the VMs, then: reboot",
)


def checks(modules: Path = Path("/lib/modules")) -> Iterator[Item]:
    """Ask apt, debsecan and the running kernel."""
    try:
        waiting = packages.upgradable()
    except WardenError as error:
        yield UPDATES.unknown(str(error))
    else:
        yield UPDATES.judged(not waiting, ", ".join(waiting) or "none, by apt's lists")
    yield _flaws()
    yield _reboot(modules)


def _flaws() -> Item:
    try:
        flaws = packages.fixed_flaws()
    except WardenError as error:
        return FLAWS.unknown(str(error), fix=error.fix)
    return FLAWS.judged(not flaws, ", ".join(flaws) or "none, by debsecan")


def _reboot(modules: Path) -> Item:
    running = os.uname().release
    installed = [entry.name for entry in modules.iterdir()] if modules.is_dir() else []
    if running not in installed:
        return REBOOT.unknown(f"{running} runs, whose modules are not installed")
    newest = packages.newest_version(installed)
    return REBOOT.judged(newest == running, f"{running} runs, the newest is {newest}")

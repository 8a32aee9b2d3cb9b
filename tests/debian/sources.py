# SPDX-License-Identifier: GPL-2.0-or-later
"""Where this machine's apt gets Debian from, so that the appliance is made from the same place."""

from __future__ import annotations

import platform

from tests.host.command import run

# How to get there; all else of the machine's apt is its own affair.
_WAYS = ("Acquire::http", "Acquire::https", "Acquire::Check-Valid-Until", "Acquire::Check-Date")


def lines(codename: str) -> list[str]:
    """The lines of a sources.list for a release, by the mirrors of this machine's own release.

    Raises LookupError where apt knows of none.
    """
    ours = platform.freedesktop_os_release()["VERSION_CODENAME"]
    found = _indexes() or _indexes_after_update()
    wanted = [
        f"deb {uri} {suite.replace(ours, codename, 1)} {component}"
        for origin, uri, suite, component in found
        if origin == "Debian" and suite.startswith(ours)
    ]
    if not wanted:
        raise LookupError(f"this machine's apt has no sources of Debian {ours}")
    return wanted


def options() -> list[str]:
    """The lines of an apt.conf with this machine's proxies and the like."""
    return [line for way in _WAYS for line in run("apt-config", "dump", way).stdout.splitlines()]


def _indexes() -> list[list[str]]:
    # apt-get(8): indextargets knows both styles of sources, and only those that were fetched.
    form = "$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)"
    listed = run("apt-get", "indextargets", "--format", form, "Created-By: Packages").stdout
    return [line.split() for line in listed.splitlines()]


def _indexes_after_update() -> list[list[str]]:
    run("apt-get", "update", "-qq", seconds=300)
    return _indexes()

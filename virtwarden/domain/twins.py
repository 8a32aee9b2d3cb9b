# SPDX-License-Identifier: GPL-2.0-or-later
"""Which other running domain has a NIC with a given MAC address on a given bridge."""

from __future__ import annotations

from pathlib import Path

from virtwarden.domain.model import Domain, from_tree, parse
from virtwarden.errors import WardenError
from virtwarden.paths import Paths
from virtwarden.system import bridges, taps

# The root of what libvirt writes of a running domain; virDomainObjFormat.
_STATUS = "domstatus"


def twin_of(paths: Paths, domain: str, bridge: str, mac: str) -> tuple[str, str]:
    """The other domain's name and its tap; two empty strings where there is none.

    Managed or not: libvirt notes each running domain with its taps. Most often no tap has an
    address that would fit, and then no note is read.
    """
    wanted = taps.address_for(mac)
    likely = {port for port in bridges.ports(bridge) if taps.address(port) == wanted}
    for file in sorted(paths.libvirt_run.glob("*.xml")) if likely else ():
        other = _read(file)
        if other is None or other.name == domain:
            continue
        for nic in other.nics:
            if nic.tap in likely and nic.mac.lower() == mac.lower():
                return other.name, nic.tap
    return "", ""


def _read(file: Path) -> Domain | None:
    try:
        status = parse(file.read_bytes(), _STATUS)
    except (WardenError, OSError):
        return None
    found = status.find("domain")
    return from_tree(found) if found is not None else None

# SPDX-License-Identifier: GPL-2.0-or-later
"""Revokes the tickets whose console service was killed, as by the kernel for want of memory."""

from __future__ import annotations

import libvirt

from virtwarden import log
from virtwarden.consoled.latest import Latest, abandoned
from virtwarden.consoled.logins import PasswordLogin, SaslLogin, SpiceLogin
from virtwarden.errors import HostError
from virtwarden.libvirtd.connection import known
from virtwarden.paths import Paths


def revoke(
    paths: Paths, hypervisor: libvirt.virConnect, but_for: frozenset[str] = frozenset()
) -> dict[str, Exception]:
    """Make QEMU accept no viewer with such a ticket, but for those of some domains, by UUID.

    Gives, by UUID, why QEMU could not be told; these tickets' files stay, for the next try.
    """
    failed: dict[str, Exception] = {}
    for latest in abandoned(paths):
        if latest.domain in but_for or not latest.holds():
            continue
        try:
            revoke_one(paths, hypervisor, latest)
        except (HostError, OSError, libvirt.libvirtError) as error:
            failed[latest.domain] = error
    return failed


def revoke_of(paths: Paths, hypervisor: libvirt.virConnect, domain: str) -> None:
    """Revoke the ticket that a killed service left of this domain. Raises as `revoke_one` does."""
    for latest in abandoned(paths):
        if latest.domain == domain and latest.holds():
            revoke_one(paths, hypervisor, latest)


def revoke_one(paths: Paths, hypervisor: libvirt.virConnect, latest: Latest) -> None:
    """Revoke one ticket. Raises HostError, OSError or libvirtError where QEMU cannot be told."""
    if latest.login == "sasl":
        SaslLogin(paths, latest.domain, latest.operator).revoke_all()
    else:
        domain = known(hypervisor, latest.domain)
        if domain is not None and domain.isActive():
            login = SpiceLogin(domain) if latest.login == "spice" else PasswordLogin(domain)
            login.revoke()
    latest.end()
    who = {"uuid": latest.domain, "operator": latest.operator}
    log.event(log.Level.WARNING, "console-revoked", **who)

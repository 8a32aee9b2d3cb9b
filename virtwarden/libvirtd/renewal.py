# SPDX-License-Identifier: GPL-2.0-or-later
"""Renews the certificates of running consoles before they expire, while the VM runs."""

from __future__ import annotations

from pathlib import Path

import libvirt

from virtwarden.changes import IssueCertificate, journal
from virtwarden.libvirtd import monitor
from virtwarden.paths import Paths
from virtwarden.pki import consoles
from virtwarden.system import certificates


def renew(paths: Paths, domain: libvirt.virDomain, *, always: bool) -> str:
    """Renew a running domain's console certificate where it is due; gives the outcome, in words.

    QEMU cannot replace that of a SPICE console, whose certificate lasts longer.

    Raises HostError where QEMU does not take the new one. QEMU then keeps the old one, and the next
    renewal gives it the new one again, whether or not one is due.
    """
    uuid = domain.UUIDString()
    with journal.locked(paths, uuid):
        issued = [
            record.change
            for record in journal.records(paths, uuid)
            if isinstance(record.change, IssueCertificate)
        ]
        if not issued:
            return "has no console with a certificate"
        change = issued[-1]
        file = Path(change.directory) / "server-cert.pem"
        if change.days == consoles.DAYS_WITHOUT_RENEWAL:
            until = certificates.expiry(certificates.load(file.read_bytes(), str(file))).date()
            return f"has a SPICE console, which keeps its certificate: valid until {until}"
        # A renewal that was cut off is due, however new its certificate is.
        renews = always or not change.is_whole or consoles.is_due(paths, file.read_bytes())
        if renews:
            journal.perform(paths, uuid, [change])
    # qapi/ui.json: since QEMU 6.1
    monitor.command(domain, "display-reload", type="vnc", **{"tls-certs": True})
    if not renews:
        return "has a console certificate; it is not due"
    return "has a new console certificate; viewers stay connected"

# SPDX-License-Identifier: GPL-2.0-or-later
"""Certificates of running consoles are renewed under the running VM, before they run out."""

from __future__ import annotations

from pathlib import Path

import libvirt

from virtwarden.changes import IssueCertificate, journal
from virtwarden.libvirtd import monitor
from virtwarden.paths import Paths
from virtwarden.pki import consoles


def renew(paths: Paths, domain: libvirt.virDomain, *, always: bool) -> str:
    """Renew a running domain's console certificate where it is due; how it went, in words.

    Raises HostError where QEMU does not take the new one: then it goes on with the old one, and is
    given the new one again by the next renewal, whether one is due then or not.
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
        # One that was cut off in the middle is due, however new it is.
        renews = always or not change.is_whole or consoles.is_due(paths, file.read_bytes())
        if renews:
            journal.perform(paths, uuid, [change])
    # qapi/ui.json: since QEMU 6.1
    monitor.command(domain, "display-reload", type="vnc", **{"tls-certs": True})
    if not renews:
        return "has a console certificate; it is not due"
    return "has a new console certificate; viewers stay connected"

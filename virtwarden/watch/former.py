# SPDX-License-Identifier: GPL-2.0-or-later
"""Notes who may reach the consoles of VMs that started under a version that made no such notes.

Their journals say it. Without the note, the rules could not be restored.
"""

from __future__ import annotations

from contextlib import suppress

from virtwarden.changes import RestrictPorts, journal, ports
from virtwarden.errors import WardenError
from virtwarden.paths import Paths
from virtwarden.system import files


def note(paths: Paths) -> None:
    """Note it for each domain whose journal nobody works at just now."""
    for domain in journal.known_domains(paths):
        with suppress(WardenError, OSError):
            _note(paths, domain)


def _note(paths: Paths, domain: str) -> None:
    if ports.noted(paths, domain) or not _restriction(paths, domain):
        return
    with files.locked(paths.domain_state(domain), wait=False), files.locked(paths.ports):
        found = _restriction(paths, domain)
        if found and not ports.noted(paths, domain):
            ports.note(paths, found)


def _restriction(paths: Paths, domain: str) -> RestrictPorts | None:
    found = [record.change for record in journal.records(paths, domain)]
    return next((change for change in reversed(found) if isinstance(change, RestrictPorts)), None)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Which domains arrive by a migration: libvirt tells that before `prepare`, and no later step."""

from __future__ import annotations

from virtwarden.paths import Paths
from virtwarden.system import files


def note(paths: Paths, domain: str) -> None:
    """Note that a domain's next start is its arrival."""
    files.private_directory(paths.arriving)
    files.write_atomically(paths.arriving / domain, b"", 0o600)


def is_noted(paths: Paths, domain: str) -> bool:
    """Whether it is noted."""
    return (paths.arriving / domain).exists()


def forget(paths: Paths, domain: str) -> None:
    """Remove the note; harmless if there is none."""
    files.discard(paths.arriving / domain)

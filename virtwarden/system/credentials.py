# SPDX-License-Identifier: GPL-2.0-or-later
"""Secrets on disk that systemd-creds(1) seals to this host, with its TPM2 where it has one."""

from __future__ import annotations

from pathlib import Path

from virtwarden.system import files
from virtwarden.system.run import run

SYSTEMD_CREDS = "/usr/bin/systemd-creds"


def seal(path: Path, name: str, secret: str) -> None:
    """Write a secret to a file that only this host can decrypt. Raises CommandError."""
    sealed = run(SYSTEMD_CREDS, "encrypt", f"--name={name}", "-", "-", stdin=secret)
    files.write_atomically(path, sealed.encode(), 0o600, durable=True)


def unseal(path: Path, name: str) -> str:
    """The secret in a sealed file. Raises CommandError on every host but the one that sealed it."""
    return run(SYSTEMD_CREDS, "decrypt", f"--name={name}", str(path), "-")

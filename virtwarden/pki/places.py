# SPDX-License-Identifier: GPL-2.0-or-later
"""Where libvirt looks for the certificates of its remote connections.

https://libvirt.org/kbase/tlscerts.html; virt-pki-validate(1) compares the modes with its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """One file: what it holds, its path below the root directory, its mode."""

    what: str
    path: Path
    mode: int


ETC = Path("/etc/pki")
CA = Place("ca", ETC / "CA/cacert.pem", 0o644)
CRL = Place("crl", ETC / "CA/cacrl.pem", 0o644)
SERVER = (
    Place("certificate", ETC / "libvirt/servercert.pem", 0o644),
    Place("key", ETC / "libvirt/private/serverkey.pem", 0o600),
)
CLIENT = (
    Place("certificate", ETC / "libvirt/clientcert.pem", 0o644),
    Place("key", ETC / "libvirt/private/clientkey.pem", 0o400),
)
# These are the modes that virt-pki-validate(1) of libvirt 11 wants; the keys have their own modes.
DIRECTORIES = {
    ETC: 0o755,
    ETC / "CA": 0o755,
    ETC / "libvirt": 0o755,
    ETC / "libvirt/private": 0o755,
}
# What a viewer or an admin's workstation needs, in a directory that the admin takes there.
BUNDLE = {"ca": "cacert.pem", "certificate": "clientcert.pem", "key": "clientkey.pem"}

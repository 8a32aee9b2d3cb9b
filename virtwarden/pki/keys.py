# SPDX-License-Identifier: GPL-2.0-or-later
"""How a CA's key is stored: with a passphrase, in an NSS database, or sealed to this host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from virtwarden.errors import HostError
from virtwarden.system import certificates, credentials, files, nss

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey as PrivateKey,
    )

Asks = Callable[[str], bytes]
"""Gives the passphrase of the authority of this name, which an admin is asked for."""

_ENCRYPTED, _SEALED, _NSS = "ca-key.pem", "ca-key.cred", "nss"


@dataclass(frozen=True)
class Rest:
    """How to store a key: with a passphrase, in a file or an NSS database, or otherwise sealed."""

    passphrase: bytes = b""
    in_nss: bool = False


def title(name: str) -> str:
    """The name of this CA in messages: `console CA` or `remote CA`."""
    return f"{name.removesuffix('s')} CA"


def store(
    directory: Path, name: str, key: PrivateKey, certificate: x509.Certificate, rest: Rest
) -> None:
    """Store a key; the certificate is the key's own."""
    if rest.in_nss:
        nss.store(directory / _NSS, name, key, certificate, rest.passphrase)
    elif rest.passphrase:
        content = certificates.pem_key(key, rest.passphrase)
        files.write_atomically(directory / _ENCRYPTED, content, 0o600, durable=True)
    else:
        credentials.seal(directory / _SEALED, name, certificates.pem_key(key).decode())


def load(directory: Path, name: str, asks: Asks) -> PrivateKey:
    """The stored key. Raises HostError."""
    encrypted = directory / _ENCRYPTED
    if encrypted.exists():
        return certificates.load_key(encrypted.read_bytes(), str(encrypted), asks(name))
    if (directory / _NSS).exists():
        return nss.load(directory / _NSS, name, asks(name))
    sealed = directory / _SEALED
    if not sealed.exists():
        raise HostError(
            f"the {title(name)} has no key",
            where=str(directory),
            fix=f"restore it from a backup, or: virt-warden pki init {name}",
        )
    return certificates.load_key(credentials.unseal(sealed, name).encode(), str(sealed))


def at_rest(directory: Path) -> tuple[Path, ...]:
    """The files of the key of the CA in this directory; empty where the key was taken away."""
    places = (directory / name for name in (_ENCRYPTED, _NSS, _SEALED))
    return tuple(place for place in places if place.exists())


def kind(directory: Path) -> str:
    """How the key is stored, in words."""
    if (directory / _ENCRYPTED).exists():
        return "passphrase"
    if (directory / _NSS).exists():
        return "NSS database"
    return "sealed to this host" if (directory / _SEALED).exists() else "no key here"


def nobody(name: str) -> bytes:
    """Raise HostError instead of asking, where no admin is there to answer."""
    raise HostError(
        f"the signer of the {title(name)} must be renewed, which needs the CA's passphrase",
        fix="as an admin who knows it: virt-warden pki renew --signer",
    )

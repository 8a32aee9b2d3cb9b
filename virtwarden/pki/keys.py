"""How an authority's key rests: behind a passphrase, or sealed to this host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from virtwarden.errors import HostError
from virtwarden.system import certificates, credentials, files

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey as PrivateKey,
    )

Asks = Callable[[str], bytes]
"""Gives the passphrase of the authority of this name, which an admin is asked for."""

_ENCRYPTED, _SEALED = "ca-key.pem", "ca-key.cred"


def store(directory: Path, name: str, key: PrivateKey, passphrase: bytes = b"") -> None:
    """Put a key to rest: encrypted where there is a passphrase, else sealed to this host."""
    if passphrase:
        content = certificates.pem_key(key, passphrase)
        files.write_atomically(directory / _ENCRYPTED, content, 0o600, durable=True)
    else:
        credentials.seal(directory / _SEALED, name, certificates.pem_key(key).decode())


def load(directory: Path, name: str, asks: Asks) -> PrivateKey:
    """A key out of its rest. Raises HostError."""
    encrypted = directory / _ENCRYPTED
    if encrypted.exists():
        return certificates.load_key(encrypted.read_bytes(), str(encrypted), asks(name))
    sealed = directory / _SEALED
    if not sealed.exists():
        raise HostError(
            f"the authority {name} has no key",
            where=str(directory),
            fix=f"bring it back from a backup, or: virt-warden pki init {name}",
        )
    return certificates.load_key(credentials.unseal(sealed, name).encode(), str(sealed))


def kind(directory: Path) -> str:
    """How the key rests, in words."""
    if (directory / _ENCRYPTED).exists():
        return "passphrase"
    return "sealed to this host" if (directory / _SEALED).exists() else "no key here"


def nobody(name: str) -> bytes:
    """Asks no one: for those who run with no admin at hand."""
    raise HostError(f"the authority {name} has a passphrase", fix="run it as an admin who knows it")

# SPDX-License-Identifier: GPL-2.0-or-later
"""A CA: its certificate, the certificates that it issued, and those that it revoked."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from virtwarden.errors import HostError
from virtwarden.pki import keys
from virtwarden.pki.keys import Asks, Rest
from virtwarden.system import certificates, files
from virtwarden.system.certificates import DAY, Issuer, Purpose

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey as PrivateKey,
    )

CERTIFICATE = "ca-cert.pem"
CRL = "ca-crl.pem"
_INDEX = "issued.json"
AUTHORITY_LIFE = 3650 * DAY
# An expired list makes GnuTLS refuse everyone. Each change makes a new list, and a list lasts as
# long as nothing changes.
_CRL_LIFE = 3650 * DAY
_SEALED = Rest()


@dataclass(frozen=True)
class Issued:
    """One certificate that a CA issued; times are ISO 8601, in UTC."""

    serial: str
    purpose: str
    name: str
    expires: str
    revoked: str = ""


@dataclass(frozen=True)
class Authority:
    """A CA in its directory; `name` is `consoles` or `remote`."""

    name: str
    directory: Path

    @property
    def title(self) -> str:
        """The name of the CA in messages."""
        return keys.title(self.name)

    @property
    def exists(self) -> bool:
        """Whether the CA was created."""
        return (self.directory / CERTIFICATE).exists()

    @property
    def certificate(self) -> x509.Certificate:
        """The CA's own certificate. Raises HostError where the CA was never created."""
        file = self.directory / CERTIFICATE
        try:
            return certificates.load(file.read_bytes(), str(file))
        except FileNotFoundError:
            raise HostError(
                f"there is no {self.title}", fix=f"virt-warden pki init {self.name}"
            ) from None


def create(authority: Authority, rest: Rest = _SEALED) -> None:
    """Create the CA. It writes the certificate last: where that exists, everything does.

    Raises HostError where the CA exists already: a new one would make worthless what it issued.
    """
    with held(authority):
        if authority.exists:
            raise HostError(
                f"the {authority.title} already exists",
                where=str(authority.directory),
                fix="to make a new one, move that directory away; all its certificates end",
            )
        key = certificates.new_key()
        title = f"virt-warden {authority.name} of {os.uname().nodename}"
        certificate = certificates.self_signed(title, key, AUTHORITY_LIFE)
        keys.store(authority.directory, authority.name, key, certificate, rest)
        _publish_revocations(authority, Issuer(certificate, key), [])
        content = certificates.pem(certificate)
        files.write_atomically(authority.directory / CERTIFICATE, content, 0o644, durable=True)


def issue(
    authority: Authority,
    issuer: Issuer,
    purpose: Purpose,
    name: str,
    life: datetime.timedelta,
    *,
    names: Iterable[str] = (),
    of_issuer: bool = False,
) -> tuple[x509.Certificate, PrivateKey]:
    """A certificate with a new key, noted in the CA's list; see certificates.issue."""
    key = certificates.new_key()
    certificate = certificates.issue(
        issuer, purpose, name, key.public_key(), life, names=names, of_issuer=of_issuer
    )
    record = Issued(
        serial=f"{certificate.serial_number:x}",
        purpose=purpose.value,
        name=name,
        expires=certificates.expiry(certificate).isoformat(),
    )
    with _index(authority) as index:
        index.append(record)
    return certificate, key


def issuer_of(authority: Authority, asks: Asks) -> Issuer:
    """The CA itself as the issuer. Raises HostError where its key is not available."""
    return Issuer(authority.certificate, keys.load(authority.directory, authority.name, asks))


def revoke(authority: Authority, issuer: Issuer, wanted: str) -> list[Issued]:
    """Revoke the certificates with this serial number or name, and publish the list.

    Gives the revoked certificates. Raises HostError where none of them is still valid.
    """
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None, microsecond=0).isoformat()
    with _index(authority) as index:
        chosen = [i for i in index if wanted in (i.serial, i.name) and not i.revoked]
        if not chosen:
            raise HostError(
                f"the {authority.title} issued no valid certificate for {wanted}",
                fix=f"see what it issued: virt-warden pki list {authority.name}",
            )
        index[:] = [replace(one, revoked=now) if one in chosen else one for one in index]
        _publish_revocations(authority, issuer, index)
    return chosen


def issued(authority: Authority) -> list[Issued]:
    """All certificates that the CA ever issued, the oldest first."""
    try:
        listed = json.loads((authority.directory / _INDEX).read_text())
    except FileNotFoundError:
        return []
    return [Issued(**entry) for entry in listed]


@contextmanager
def held(authority: Authority) -> Iterator[None]:
    """Lock the CA's directory for one writer, and remove what a killed one left behind."""
    with files.locked(authority.directory):
        files.discard_torn(authority.directory)
        yield


@contextmanager
def _index(authority: Authority) -> Iterator[list[Issued]]:
    """The list of issued certificates: locked, and written back at the end."""
    with held(authority):
        index = issued(authority)
        yield index
        content = json.dumps([asdict(one) for one in index], indent=1).encode()
        files.write_atomically(authority.directory / _INDEX, content, 0o600, durable=True)


def _publish_revocations(authority: Authority, issuer: Issuer, index: Iterable[Issued]) -> None:
    revoked = [
        (int(one.serial, 16), datetime.datetime.fromisoformat(one.revoked))
        for one in index
        if one.revoked
    ]
    content = certificates.revocations(issuer, revoked, _CRL_LIFE)
    files.write_atomically(authority.directory / CRL, content, 0o644, durable=True)

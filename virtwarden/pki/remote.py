# SPDX-License-Identifier: GPL-2.0-or-later
"""Certificates of libvirt's remote connections: this host's own, and those of admins."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.pki import authority, places
from virtwarden.pki.authority import Authority
from virtwarden.pki.keys import Asks
from virtwarden.system import certificates, files
from virtwarden.system.certificates import DAY, Purpose

if TYPE_CHECKING:
    from cryptography import x509

NAME = "remote"
SERVER_LIFE = 398 * DAY
CLIENT_LIFE = 398 * DAY


def ca(paths: Paths) -> Authority:
    """The remote CA of this host."""
    return Authority(NAME, paths.state / "remote-ca")


def install_server(paths: Paths, names: Iterable[str], asks: Asks) -> list[Path]:
    """Give this host a server certificate for these names, where libvirt looks for it.

    Gives the files that it wrote. Raises HostError.
    """
    above = ca(paths)
    issuer = authority.issuer_of(above, asks)
    wanted = tuple(names)
    # virt-pki-validate(1) compares this organisation with the CA's common name.
    certificate, key = authority.issue(
        above, issuer, Purpose.SERVER, wanted[0], SERVER_LIFE, names=wanted, of_issuer=True
    )
    content = {
        "ca": certificates.pem(above.certificate),
        "crl": (above.directory / authority.CRL).read_bytes(),
        "certificate": certificates.pem(certificate),
        "key": certificates.pem_key(key),
    }
    return install(content, (places.CA, places.CRL, *places.SERVER))


def publish(paths: Paths) -> list[Path]:
    """Write the CA and its revocations where libvirt looks; needed after each revocation."""
    above = ca(paths)
    crl = (above.directory / authority.CRL).read_bytes()
    content = {"ca": certificates.pem(above.certificate), "crl": crl}
    return install(content, (places.CA, places.CRL))


def install(content: dict[str, bytes], wanted: Iterable[places.Place]) -> list[Path]:
    """Write files to their places, and make the directories above them."""
    for directory, mode in places.DIRECTORIES.items():
        directory.mkdir(mode=mode, exist_ok=True)
    written = []
    for place in wanted:
        files.write_atomically(place.path, content[place.what], place.mode, durable=True)
        written.append(place.path)
    return written


def client(
    above: Authority, name: str, directory: Path, asks: Asks
) -> tuple[x509.Certificate, list[Path]]:
    """A client certificate with its key, in a new directory that the admin takes to the client.

    Raises HostError where the directory exists already.
    """
    issuer = authority.issuer_of(above, asks)
    try:
        directory.mkdir(mode=0o700)
    except OSError as error:
        raise HostError(
            f"{directory} cannot be made: {error.strerror}", fix="name one that is not there yet"
        ) from None
    certificate, key = authority.issue(above, issuer, Purpose.CLIENT, name, CLIENT_LIFE)
    content = {
        "ca": certificates.pem(above.certificate),
        "certificate": certificates.pem(certificate),
        "key": certificates.pem_key(key),
    }
    written = []
    for what, file in places.BUNDLE.items():
        mode = 0o400 if what == "key" else 0o444
        files.write_atomically(directory / file, content[what], mode, gid=os.getgid())
        written.append(directory / file)
    return certificate, written

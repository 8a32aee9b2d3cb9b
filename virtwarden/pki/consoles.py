# SPDX-License-Identifier: GPL-2.0-or-later
"""The console CA: its signer issues each VM's certificate and asks nobody.

The CA's key may have a passphrase. The signer's key is sealed to this host. The first start after a
boot unseals it into /run, which is on no disk. Viewers trust only the CA.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.pki import authority, keys
from virtwarden.pki.authority import Authority
from virtwarden.pki.keys import Asks, Rest, nobody
from virtwarden.system import certificates, credentials, files
from virtwarden.system.certificates import DAY, Issuer, Purpose

NAME = "consoles"
SIGNER_CERTIFICATE = "signer-cert.pem"
_SIGNER_KEY, _SIGNER = "signer-key.cred", "console-signer"
_SIGNER_LIFE = 1825 * DAY
# The certificate is renewed while the VM runs, when two thirds of this time have passed.
DAYS = 30
# QEMU reads SPICE's only when it starts: longer than a VM runs on a QEMU and a kernel that are kept
# up to date.
DAYS_WITHOUT_RENEWAL = 1095
FILES = ("ca-cert.pem", "ca-crl.pem", "server-cert.pem", "server-key.pem", "dh-params.pem")
# This file is written last: where it exists, all of them do.
LAST_FILE = FILES[-1]

# The group ffdhe2048 (RFC 7919, A.1). Without this file QEMU makes its own parameters at each
# start, which takes up to a second and makes them no better.
_DH_PARAMETERS = b"""\
-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""


def ca(paths: Paths) -> Authority:
    """The console CA of this host."""
    return Authority(NAME, paths.console_ca)


def create(paths: Paths, rest: Rest) -> None:
    """Create the CA and its signer. Raises HostError where the CA exists already."""
    authority.create(ca(paths), rest)
    renew_signer(paths, lambda _: rest.passphrase)


def renew_signer(paths: Paths, asks: Asks) -> None:
    """Give the CA a new signer; what the former one signed stays valid."""
    above = ca(paths)
    issuer = authority.issuer_of(above, asks)
    certificate, key = authority.issue(
        above, issuer, Purpose.SIGNER, "virt-warden console signer", _SIGNER_LIFE
    )
    directory = above.directory
    with authority.held(above):
        credentials.seal(directory / _SIGNER_KEY, _SIGNER, certificates.pem_key(key).decode())
        _unsealed(paths).unlink(missing_ok=True)
        files.write_atomically(
            directory / SIGNER_CERTIFICATE, certificates.pem(certificate), 0o644, durable=True
        )


def issue(
    paths: Paths, common_name: str, names: tuple[str, ...], days: int = DAYS
) -> dict[str, bytes]:
    """A new key and a certificate for one console, reached under these names and addresses.

    Gives the files of a QEMU `tls-creds-x509` directory, PEM, by name (qemu(1), -object
    tls-creds-x509). Creates a CA where there is none yet. Raises HostError where the CA is damaged,
    or where a renewal was cut off that only an admin with the passphrase can repeat.
    """
    above = ca(paths)
    try:
        with files.locked(paths.console_ca.parent):
            if not (above.directory / SIGNER_CERTIFICATE).exists():
                _complete(paths)
            signer = _signer(paths)
            if not signer.is_one:  # a renewal was cut off between the two
                renew_signer(paths, nobody)
                signer = _signer(paths)
        return _issue(above, signer, common_name, names, days)
    except (HostError, OSError) as error:
        if isinstance(error, HostError) and error.fix:
            raise  # it is whole, or the fix is known
        raise HostError(
            f"the console CA in {paths.console_ca} is damaged: {error}",
            fix=f"restore it, or rm -r {paths.console_ca}: the next start makes a new one, which"
            " viewers then need",
        ) from None


def _issue(
    above: Authority, signer: Issuer, common_name: str, names: tuple[str, ...], days: int
) -> dict[str, bytes]:
    key = certificates.new_key()
    certificate = certificates.issue(
        signer, Purpose.SERVER, common_name, key.public_key(), days * DAY, names=names
    )
    chain = certificates.pem(signer.certificate)
    # QEMU looks for the issuer of its own certificate among the CAs, not in the chain.
    authorities = chain + certificates.pem(above.certificate)
    content = (
        authorities,
        (above.directory / authority.CRL).read_bytes(),
        certificates.pem(certificate) + chain,
        certificates.pem_key(key),
        _DH_PARAMETERS,
    )
    return dict(zip(FILES, content, strict=True))


def is_due(paths: Paths, content: bytes) -> bool:
    """Whether a console's certificate must be renewed: it is old, or a former signer made it."""
    certificate = certificates.load(content, "a console's certificate")
    current = certificates.load(_signer_file(paths).read_bytes(), str(_signer_file(paths)))
    aged = certificates.has_run_out(certificate, share=2 / 3)
    return aged or not certificates.is_signed_by(certificate, current)


def _complete(paths: Paths) -> None:
    """Create what is missing: at a first start all of it, after a crash perhaps only the signer."""
    if not ca(paths).exists:
        authority.create(ca(paths))
    renew_signer(paths, nobody)


def _signer(paths: Paths) -> Issuer:
    file, unsealed = _signer_file(paths), _unsealed(paths)
    with authority.held(ca(paths)):  # a renewal replaces one file after the other
        certificate = file.read_bytes()
        try:
            content = unsealed.read_bytes()
        except FileNotFoundError:
            content = credentials.unseal(paths.console_ca / _SIGNER_KEY, _SIGNER).encode()
            files.private_directory(unsealed.parent)
            files.write_atomically(unsealed, content, 0o600)
    return _issuer(certificate, str(file), content, str(unsealed))


@lru_cache(maxsize=1)  # reading the key takes longer than signing with it
def _issuer(certificate: bytes, file: str, key: bytes, key_file: str) -> Issuer:
    return Issuer(certificates.load(certificate, file), certificates.load_key(key, key_file))


def _signer_file(paths: Paths) -> Path:
    return paths.console_ca / SIGNER_CERTIFICATE


def signer_keys(paths: Paths) -> tuple[Path, ...]:
    """The files of the signer's key: sealed, and unsealed since the first start after the boot."""
    places = (paths.console_ca / _SIGNER_KEY, _unsealed(paths))
    return tuple(place for place in places if place.exists())


def _unsealed(paths: Paths) -> Path:
    return paths.run / "keys" / _SIGNER


def key_kind(paths: Paths) -> str:
    """How the CA's key is stored, in words."""
    return keys.kind(paths.console_ca)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The consoles' authority: a signer below it makes each VM's certificate, with nobody to ask.

The authority's key may have a passphrase; the signer's is sealed to this host, and unsealed into
/run, which no disk holds, at the first start after a boot. Viewers trust the authority alone.
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
# Renewed under the running VM when two thirds of it have passed.
SERVER_LIFE = 30 * DAY
FILES = ("ca-cert.pem", "ca-crl.pem", "server-cert.pem", "server-key.pem", "dh-params.pem")
# Written last: where it is, all are.
LAST_FILE = FILES[-1]

# The group ffdhe2048 (RFC 7919, A.1): without this file QEMU makes parameters of its own at each
# start, which takes it up to a second and makes them no better.
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
    """The consoles' authority of this host."""
    return Authority(NAME, paths.console_ca)


def create(paths: Paths, rest: Rest) -> None:
    """Make the authority and its signer. Raises HostError where it is there already."""
    authority.create(ca(paths), rest)
    renew_signer(paths, lambda _: rest.passphrase)


def renew_signer(paths: Paths, asks: Asks) -> None:
    """Give the authority a new signer; what the former one signed stays valid."""
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


def issue(paths: Paths, common_name: str, names: tuple[str, ...]) -> dict[str, bytes]:
    """A new key and a certificate for one console, reached under these names and addresses.

    Gives the files of a QEMU `tls-creds-x509` directory, PEM, by name (qemu(1), -object
    tls-creds-x509). An authority is made where there is none yet. Raises HostError where it is
    damaged, or a renewal was cut off that an admin alone, with the passphrase, can do again.
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
        return _issue(above, signer, common_name, names)
    except (HostError, OSError) as error:
        if isinstance(error, HostError) and error.fix:
            raise  # it is whole, or the fix is known
        raise HostError(
            f"the console CA in {paths.console_ca} is damaged: {error}",
            fix=f"restore it, or rm -r {paths.console_ca}: the next start makes a new one, which"
            " viewers then need",
        ) from None


def _issue(
    above: Authority, signer: Issuer, common_name: str, names: tuple[str, ...]
) -> dict[str, bytes]:
    key = certificates.new_key()
    certificate = certificates.issue(
        signer, Purpose.SERVER, common_name, key.public_key(), SERVER_LIFE, names=names
    )
    chain = certificates.pem(signer.certificate)
    # QEMU looks for the issuer of its own certificate among the authorities, not in the chain.
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
    """Whether a console's certificate must be renewed: it ages, or is of a former signer."""
    certificate = certificates.load(content, "a console's certificate")
    current = certificates.load(_signer_file(paths).read_bytes(), str(_signer_file(paths)))
    aged = certificates.has_run_out(certificate, share=2 / 3)
    return aged or not certificates.is_signed_by(certificate, current)


def _complete(paths: Paths) -> None:
    """Make what is missing: all of it at a first start, the signer after a crash in between."""
    if not ca(paths).exists:
        authority.create(ca(paths))
    renew_signer(paths, nobody)


def _signer(paths: Paths) -> Issuer:
    file, unsealed = _signer_file(paths), _unsealed(paths)
    with authority.held(ca(paths)):  # who renews it replaces one after the other
        certificate = file.read_bytes()
        try:
            content = unsealed.read_bytes()
        except FileNotFoundError:
            content = credentials.unseal(paths.console_ca / _SIGNER_KEY, _SIGNER).encode()
            files.private_directory(unsealed.parent)
            files.write_atomically(unsealed, content, 0o600)
    return _issuer(certificate, str(file), content, str(unsealed))


@lru_cache(maxsize=1)  # to read the key takes longer than to sign with it
def _issuer(certificate: bytes, file: str, key: bytes, key_file: str) -> Issuer:
    return Issuer(certificates.load(certificate, file), certificates.load_key(key, key_file))


def _signer_file(paths: Paths) -> Path:
    return paths.console_ca / SIGNER_CERTIFICATE


def signer_keys(paths: Paths) -> tuple[Path, ...]:
    """Where the signer's key lies: sealed, and unsealed since the first start after the boot."""
    places = (paths.console_ca / _SIGNER_KEY, _unsealed(paths))
    return tuple(place for place in places if place.exists())


def _unsealed(paths: Paths) -> Path:
    return paths.run / "keys" / _SIGNER


def key_kind(paths: Paths) -> str:
    """How the authority's key rests, in words."""
    return keys.kind(paths.console_ca)

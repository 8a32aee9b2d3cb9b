"""The authority that signs the consoles' certificates, and the certificates."""

from __future__ import annotations

import datetime
import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING

from virtwarden.errors import HostError
from virtwarden.system import files

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )

CA_CERTIFICATE = "ca-cert.pem"
CA_KEY = "ca-key.pem"
FILES = (CA_CERTIFICATE, "server-cert.pem", "server-key.pem", "dh-params.pem")

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

_DAY = datetime.timedelta(days=1)
_CA_LIFE = 7300 * _DAY
# A console must not die under a VM that runs for years: each start makes a new certificate.
_SERVER_LIFE = 3650 * _DAY


def issue(ca_directory: Path, common_name: str, names: tuple[str, ...]) -> dict[str, bytes]:
    """A new key and a TLS server certificate for these DNS names and IP addresses (RFC 5280).

    Gives the files of a QEMU `tls-creds-x509` directory, PEM, by name. The authority is
    made in `ca_directory` where there is none yet; its key never leaves that directory.
    Raises HostError where the authority is damaged.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    ca_certificate, ca_key = _authority(ca_directory)
    key = ec.generate_private_key(ec.SECP256R1())
    expiry = min(_now() + _SERVER_LIFE, ca_certificate.not_valid_after)
    certificate = (
        _certificate(common_name, ca_certificate.subject, key.public_key(), expiry)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, _sha256())
    )
    content = (_pem(ca_certificate), _pem(certificate), _pem_key(key), _DH_PARAMETERS)
    return dict(zip(FILES, content, strict=True))


def _authority(directory: Path) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    with files.locked(directory):
        if not (directory / CA_CERTIFICATE).exists():
            _found_authority(directory)
        try:
            return _read_authority(directory)
        except (OSError, ValueError, TypeError) as error:
            raise HostError(
                f"the consoles' authority in {directory} is damaged: {error}",
                fix=f"restore it, or rm -r {directory}: the next start makes a new one, which"
                " viewers then need",
            ) from None


def _read_authority(directory: Path) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    certificate = x509.load_pem_x509_certificate((directory / CA_CERTIFICATE).read_bytes())
    key = load_pem_private_key((directory / CA_KEY).read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{CA_KEY} is not a key that virt-warden made")
    return certificate, key


def _found_authority(directory: Path) -> None:
    """Make the authority. The certificate comes last: where it is, all is."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = f"virt-warden consoles of {os.uname().nodename}"[:64]
    subject = _subject(name)
    certificate = (
        _certificate(name, subject, key.public_key(), _now() + _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, _sha256())
    )
    files.write_atomically(directory / CA_KEY, _pem_key(key), 0o600, durable=True)
    files.write_atomically(directory / CA_CERTIFICATE, _pem(certificate), 0o644, durable=True)


def _certificate(
    common_name: str,
    issuer: x509.Name,
    public_key: EllipticCurvePublicKey,
    expiry: datetime.datetime,
) -> x509.CertificateBuilder:
    from cryptography import x509

    return (
        x509.CertificateBuilder()
        .subject_name(_subject(common_name))
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        # A viewer whose clock is behind ours must not find it not yet valid.
        .not_valid_before(_now() - _DAY)
        .not_valid_after(expiry)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _subject(common_name: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _pem_key(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _sha256() -> x509.base.hashes.SHA256:  # type: ignore[name-defined]
    from cryptography.hazmat.primitives import hashes

    return hashes.SHA256()


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)

# SPDX-License-Identifier: GPL-2.0-or-later
"""X.509: CAs, server and client certificates, revocation lists (RFC 5280).

All keys are ECDSA on P-256. Each function imports cryptography itself, so that only its callers
wait for that import.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from virtwarden.errors import HostError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey as PrivateKey,
    )
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePublicKey as PublicKey,
    )

DAY = datetime.timedelta(days=1)
# RFC 7468, 5.1
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class Purpose(Enum):
    """What a certificate is for."""

    AUTHORITY = "authority"
    SIGNER = "signer"
    """An authority below another one, which may make none itself."""
    SERVER = "server"
    CLIENT = "client"


@dataclass(frozen=True)
class Issuer:
    """A CA that signs: its certificate and its key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def is_one(self) -> bool:
        """Whether the key belongs to the certificate."""
        public: Any = self.certificate.public_key()
        return bool(public.public_numbers() == self.key.public_key().public_numbers())


def new_key() -> PrivateKey:
    """A new random key."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def self_signed(name: str, key: PrivateKey, life: datetime.timedelta) -> x509.Certificate:
    """The certificate of a self-signed CA."""
    subject = _subject(name)
    builder = _builder(subject, subject, key.public_key(), _now() + life)
    return _extended(builder, Purpose.AUTHORITY).sign(key, _sha256())


def issue(
    issuer: Issuer,
    purpose: Purpose,
    name: str,
    key: PublicKey,
    life: datetime.timedelta,
    *,
    names: Iterable[str] = (),
    of_issuer: bool = False,
) -> x509.Certificate:
    """A certificate for a key; `names` are the DNS names and IP addresses of a server.

    `of_issuer` names the issuer as the subject's organisation. The certificate expires no later
    than its issuer.
    """
    from cryptography import x509

    above = issuer.certificate
    until = min(_now() + life, expiry(above))
    subject = _subject(name, organization=_common_name(above) if of_issuer else "")
    builder = _extended(_builder(subject, above.subject, key, until), purpose)
    authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    builder = builder.add_extension(authority_key, critical=False)
    alternatives = [_general(one) for one in names]
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(issuer.key, _sha256())


def revocations(
    issuer: Issuer, revoked: Iterable[tuple[int, datetime.datetime]], life: datetime.timedelta
) -> bytes:
    """A revocation list, PEM, of serial numbers with the time (UTC) at which each was revoked."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(_now() - DAY)
        .next_update(min(_now() + life, expiry(issuer.certificate)))
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), False
        )
        .add_extension(x509.CRLNumber(int(_now().timestamp())), critical=False)
    )
    for serial, when in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(issuer.key, _sha256()).public_bytes(Encoding.PEM)


def pem(certificate: x509.Certificate) -> bytes:
    """A certificate as PEM, for a file."""
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def load(content: bytes, where: str) -> x509.Certificate:
    """The first certificate in a PEM file. Raises HostError."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(content)
    except ValueError as error:
        raise HostError(f"it is no certificate: {error}", where=where) from None


def load_all(content: bytes, where: str) -> list[x509.Certificate]:
    """The certificates in a PEM file, at least one. Raises HostError."""
    return [load(each, where) for each in _PEM.findall(content) or [content]]


def pem_key(key: PrivateKey, passphrase: bytes = b"") -> bytes:
    """A key as PEM (PKCS#8), for a file; encrypted where there is a passphrase."""
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    encryption: Any = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def load_key(content: bytes, where: str, passphrase: bytes | None = None) -> PrivateKey:
    """The key in a file. Raises HostError, also where the passphrase is wrong."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(content, password=passphrase)
    except (ValueError, TypeError):
        raise HostError(
            "the key cannot be read: wrong passphrase, or a damaged file", where=where
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise HostError("it is not a key that virt-warden made", where=where)
    return key


def is_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the issuer's key signed the certificate directly."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec

    public: Any = issuer.public_key()
    try:
        public.verify(
            certificate.signature,
            certificate.tbs_certificate_bytes,
            ec.ECDSA(certificate.signature_hash_algorithm),  # type: ignore[arg-type]
        )
    except (InvalidSignature, TypeError, AttributeError):
        return False
    return certificate.issuer == issuer.subject


def expiry(certificate: x509.Certificate) -> datetime.datetime:
    """When a certificate expires, in UTC as a datetime without a zone."""
    return _moment(certificate, "not_valid_after")


def has_run_out(certificate: x509.Certificate, *, share: float = 1.0) -> bool:
    """Whether this share of a certificate's life has passed; with 1.0, whether it has expired."""
    begun, end = _moment(certificate, "not_valid_before"), expiry(certificate)
    return _now() >= begun + (end - begun) * share


def is_to_come(certificate: x509.Certificate) -> bool:
    """Whether a certificate is not valid yet."""
    return _now() < _moment(certificate, "not_valid_before")


def runs_out_soon(certificate: x509.Certificate) -> bool:
    """Whether it expires within 30 days, or within a fifth of its life where that is less."""
    begun, end = _moment(certificate, "not_valid_before"), expiry(certificate)
    return _now() >= end - min(30 * DAY, (end - begun) / 5)


def key_in_words(certificate: x509.Certificate) -> str:
    """The kind and the size, in bits, of a certificate's key."""
    public: Any = certificate.public_key()
    kind = type(public).__name__.strip("_").removesuffix("PublicKey").replace("EllipticCurve", "EC")
    size = getattr(public, "key_size", 0)
    return f"{kind} of {size} bits" if size else kind


def weakness(certificate: x509.Certificate) -> str:
    """Why it can be forged today; empty where it cannot (NIST SP 800-131A, table 2)."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

    try:
        public: Any = certificate.public_key()
        digest = certificate.signature_hash_algorithm
    except (UnsupportedAlgorithm, ValueError) as error:
        return f"its key or its signature is of no known kind: {error}"
    least = 224 if isinstance(public, ec.EllipticCurvePublicKey) else 2048
    has_size = (ec.EllipticCurvePublicKey, rsa.RSAPublicKey, dsa.DSAPublicKey)
    if isinstance(public, has_size) and public.key_size < least:
        return f"its key is {key_in_words(certificate)}"
    # A root is not trusted because of its signature.
    is_root = certificate.issuer == certificate.subject
    if digest is not None and digest.name in ("md5", "sha1") and not is_root:
        return f"it is signed with {digest.name.upper()}"
    return ""


def _moment(certificate: x509.Certificate, name: str) -> datetime.datetime:
    # cryptography 42 warns the admin about the names without a zone, and 38 has only those.
    zoned = getattr(certificate, f"{name}_utc", None)
    moment: datetime.datetime = zoned or getattr(certificate, name)
    return moment.replace(tzinfo=None)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, until: datetime.datetime
) -> x509.CertificateBuilder:
    from cryptography import x509

    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # A peer whose clock is behind ours must find it valid.
        .not_valid_before(_now() - DAY)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _extended(builder: x509.CertificateBuilder, purpose: Purpose) -> x509.CertificateBuilder:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    signs = purpose in (Purpose.AUTHORITY, Purpose.SIGNER)
    below = {Purpose.AUTHORITY: 1, Purpose.SIGNER: 0}.get(purpose)
    builder = builder.add_extension(x509.BasicConstraints(signs, below), critical=True)
    builder = builder.add_extension(_key_usage(signs=signs), critical=True)
    if signs:
        return builder
    usage = {
        Purpose.SERVER: ExtendedKeyUsageOID.SERVER_AUTH,
        Purpose.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH,
    }[purpose]
    return builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        # Useless with an ECDSA key (RFC 8813), but libvirt 9.0 refuses a certificate without it.
        key_encipherment=not signs,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(common_name: str, organization: str = "") -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    # X.520: a common name or an organisation name has at most 64 characters.
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])]
    if organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _common_name(certificate: x509.Certificate) -> str:
    from cryptography.x509.oid import NameOID

    (attribute,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(attribute.value)


def _general(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _sha256() -> Any:
    from cryptography.hazmat.primitives import hashes

    return hashes.SHA256()


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)

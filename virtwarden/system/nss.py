# SPDX-License-Identifier: GPL-2.0-or-later
"""A key and its certificate in an NSS database: certutil(1), pk12util(1), of libnss3-tools.

The tools get passphrases through pipes. Keys go in and out as PKCS #12 (RFC 7292), encrypted with
the same passphrase. That is a file in memory, not a pipe, because the tools seek in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from virtwarden.errors import CommandError, HostError
from virtwarden.system import files
from virtwarden.system.run import output

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey as PrivateKey,
    )

_CERTUTIL, _PK12UTIL = "/usr/bin/certutil", "/usr/bin/pk12util"
_OPENSSL = "/usr/bin/openssl"
_LIMIT_BYTES = 1 << 20


def store(
    directory: Path, name: str, key: PrivateKey, certificate: x509.Certificate, passphrase: bytes
) -> None:
    """Make a database that holds this key under this nickname, and replace any that is there.

    Raises CommandError.
    """
    import shutil

    moved = _container(name, key, certificate, passphrase)
    shutil.rmtree(directory, ignore_errors=True)  # left by a run that was cut off: nothing uses it
    files.private_directory(directory)
    where = f"sql:{directory}"
    with _pipe(passphrase) as database:
        output(*(_CERTUTIL, "-N", "-d", where, "-f", _name(database)), inherited=[database])
    with _pipe(passphrase) as database, _pipe(passphrase) as container, _memory(moved) as content:
        output(
            *(_PK12UTIL, "-i", _name(content), "-d", where),
            *("-k", _name(database), "-w", _name(container)),
            inherited=[database, container, content],
        )


def load(directory: Path, name: str, passphrase: bytes) -> PrivateKey:
    """The key with this nickname. Raises HostError where the passphrase is wrong."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import pkcs12

    with _pipe(passphrase) as database, _pipe(passphrase) as container, _memory(b"") as content:
        try:
            output(
                *(_PK12UTIL, "-o", _name(content), "-n", name, "-d", f"sql:{directory}"),
                *("-k", _name(database), "-w", _name(container)),
                inherited=[database, container, content],
            )
        except CommandError as error:
            raise HostError(
                f"the key cannot be had: {error.said}",
                where=f"NSS database {directory}",
                fix=f"see whether the passphrase opens it: certutil -K -d sql:{directory}",
            ) from None
        key, _, _ = pkcs12.load_key_and_certificates(os.pread(content, _LIMIT_BYTES, 0), passphrase)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise HostError(f"{name} is no ECDSA key", where=f"NSS database {directory}")
    return key


def _container(
    name: str, key: PrivateKey, certificate: x509.Certificate, passphrase: bytes
) -> bytes:
    """The key and its certificate as PKCS #12, encrypted with the passphrase."""
    from cryptography.hazmat.primitives import serialization

    inside = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    # cryptography 43 leaves out the id that ties the key to its certificate. NSS refuses a key
    # without it.
    with _pipe(passphrase) as given:
        return output(
            *(_OPENSSL, "pkcs12", "-export", "-name", name, "-passout", f"fd:{given}"),
            stdin=inside,
            inherited=[given],
        )


@contextmanager
def _pipe(passphrase: bytes) -> Iterator[int]:
    """The reading end of a pipe that gives a passphrase once."""
    reader, writer = os.pipe()
    try:
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(passphrase)
        yield reader
    finally:
        os.close(reader)


@contextmanager
def _memory(content: bytes) -> Iterator[int]:
    """A file in memory, on no disk (memfd_create(2))."""
    handle = os.memfd_create("pkcs12")
    try:
        os.write(handle, content)
        yield handle
    finally:
        os.close(handle)


def _name(handle: int) -> str:
    return f"/dev/fd/{handle}"

# SPDX-License-Identifier: GPL-2.0-or-later
"""A client's side of SASL: SCRAM-SHA-256 (RFC 5802, RFC 7677), and Kerberos (RFC 4752)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import importlib
import secrets
from collections.abc import Generator
from typing import Any

Steps = Generator[bytes | None, bytes, None]
"""Yields what the client says next; is sent what the server answered."""


def scram(user: str, password: str) -> Steps:
    """Raises ValueError where the server does not know the password either."""
    nonce = secrets.token_urlsafe(18)
    first = f"n={user},r={nonce}"
    challenge = (yield b"n,," + first.encode()).decode()
    said = dict(part.split("=", 1) for part in challenge.split(","))
    if not said["r"].startswith(nonce):
        raise ValueError("the server took another nonce")
    salt, rounds = base64.b64decode(said["s"]), int(said["i"])
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    last = f"c=biws,r={said['r']}"
    whole = f"{first},{challenge},{last}".encode()
    key = _hmac(salted, b"Client Key")
    signature = _hmac(hashlib.sha256(key).digest(), whole)
    proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
    answer = yield f"{last},p={base64.b64encode(proof).decode()}".encode()
    expected = base64.b64encode(_hmac(_hmac(salted, b"Server Key"), whole))
    if answer and answer != b"v=" + expected:
        raise ValueError("the server does not know the password")
    if answer:
        yield b""


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def kerberos(service: str, cache: str) -> Steps:
    """By a ticket of this credentials cache. Raises gssapi.exceptions.GSSError."""
    gssapi: Any = importlib.import_module("gssapi")  # its types are not exported

    name = gssapi.Name(service, gssapi.NameType.kerberos_principal)
    credentials = gssapi.Credentials(usage="initiate", store={"ccache": cache})
    context = gssapi.SecurityContext(name=name, creds=credentials, usage="initiate")
    said = yield context.step()
    while not context.complete:
        said = yield context.step(said)
    context.unwrap(said)  # the layers of protection that the server offers
    # None of them, since there is TLS; and to act as oneself.
    yield context.wrap(b"\1\0\0\0", encrypt=False).message

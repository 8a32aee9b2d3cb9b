# SPDX-License-Identifier: GPL-2.0-or-later
"""What the audit says of certificates: good ones, and each way in which one is not."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from virtwarden.audit import certificates as checks
from virtwarden.audit.item import Item, Severity, State
from virtwarden.paths import Paths
from virtwarden.system import certificates
from virtwarden.system.certificates import DAY, Issuer, Purpose

AUTHORITY_LIFE = 3650 * DAY


@pytest.fixture(autouse=True)
def _root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_ROOT", os.getuid())


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    key = certificates.new_key()
    return Issuer(certificates.self_signed("the tests' authority", key, AUTHORITY_LIFE), key)


def put(directory: Path, issuer: Issuer, life: datetime.timedelta = 398 * DAY) -> tuple[Path, Path]:
    """A server's certificate and its key, as QEMU and we name them."""
    key = certificates.new_key()
    made = certificates.issue(issuer, Purpose.SERVER, "host", key.public_key(), life)
    files = directory / "server-cert.pem", directory / "server-key.pem"
    contents = certificates.pem(made), certificates.pem_key(key)
    for file, content, mode in zip(files, contents, (0o444, 0o600), strict=True):
        file.write_bytes(content)
        file.chmod(mode)
    return files


def foreign(file: Path, key: Any, digest: Any) -> Path:
    """A certificate as some other tool would make it."""
    name, other = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, words)]) for words in ("host", "another")
    )
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    builder = x509.CertificateBuilder(other, name, key.public_key(), 1, now - DAY, now + 90 * DAY)
    file.write_bytes(certificates.pem(builder.sign(key, digest)))
    file.chmod(0o444)
    return file


def fault(item: Item) -> str:
    """What is wrong, of an item that is bad."""
    assert item.state is State.BAD
    return item.seen


def test_of_a_file_of_several_each_must_hold(tmp_path: Path, issuer: Issuer) -> None:
    file, key = put(tmp_path, issuer)
    weak = foreign(tmp_path / "weak.pem", _SHORT, hashes.SHA256())
    file.chmod(0o644)
    file.write_bytes(file.read_bytes() + weak.read_bytes())
    assert "1024" in fault(checks.judged(checks.CLIENTS, file, [key]))


def test_one_that_is_not_valid_yet_is_bad(
    tmp_path: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, key = put(tmp_path, issuer)
    now = certificates._now()
    monkeypatch.setattr(certificates, "_now", lambda: now - 2 * DAY)
    assert "not valid yet" in fault(checks.judged(checks.SERVER, file, [key]))


def test_one_that_is_not_roots_is_bad(
    tmp_path: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = put(tmp_path, issuer)
    monkeypatch.setattr(checks, "_ROOT", os.getuid() + 1)
    assert f"belongs to uid {os.getuid()}" in fault(checks.judged(checks.CLIENTS, file))


def test_a_certificate_that_holds_is_good_and_says_until_when(
    tmp_path: Path, issuer: Issuer
) -> None:
    certificate, key = put(tmp_path, issuer)
    item = checks.judged(checks.SERVER, certificate, [key])
    assert item.state is State.GOOD
    assert "EC of 256 bits, until 20" in item.seen


@pytest.mark.parametrize(
    ("life", "state", "severity", "words"),
    [
        (datetime.timedelta(hours=-1), State.BAD, Severity.HIGH, "expired on"),
        (29 * DAY, State.GOOD, Severity.HIGH, "until"),
        (datetime.timedelta(hours=4), State.BAD, Severity.MEDIUM, "expires on"),
    ],
    ids=["past", "made for a month", "made for hours, a day ago"],
)
def test_one_that_ran_out_is_high_and_one_that_is_about_to_medium(
    tmp_path: Path,
    issuer: Issuer,
    life: datetime.timedelta,
    state: State,
    severity: Severity,
    words: str,
) -> None:
    certificate, key = put(tmp_path, issuer, life)
    item = checks.judged(checks.SERVER, certificate, [key])
    assert (item.state, item.severity) == (state, severity)
    assert words in item.seen


@pytest.mark.parametrize(("days", "soon"), [(29, True), (31, False)])
def test_a_long_life_is_warned_of_thirty_days_before_its_end(
    tmp_path: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, days: int, soon: bool
) -> None:
    certificate, key = put(tmp_path, issuer)
    end = certificates.expiry(certificates.load(certificate.read_bytes(), ""))
    monkeypatch.setattr(certificates, "_now", lambda: end - days * DAY)
    item = checks.judged(checks.SERVER, certificate, [key])
    assert (item.state is State.BAD) is soon


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_reach_is_bad_and_first_closed(
    tmp_path: Path, issuer: Issuer, mode: int
) -> None:
    certificate, key = put(tmp_path, issuer)
    key.chmod(mode)
    item = checks.judged(checks.SERVER, certificate, [key])
    assert f"has mode {mode:04o}" in fault(item)
    assert item.fix.startswith(f"chmod go= {key}")


def test_a_key_that_is_not_roots_or_not_there_is_bad(
    tmp_path: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = put(tmp_path, issuer)
    monkeypatch.setattr(checks, "_ROOT", os.getuid() + 1)
    assert f"belongs to uid {os.getuid()}" in checks.judged(checks.SERVER, certificate, [key]).seen
    key.unlink()
    assert f"{key}: No such file" in checks.judged(checks.SERVER, certificate, [key]).seen


def test_a_file_that_is_missing_damaged_or_open_to_writers_is_bad(
    tmp_path: Path, issuer: Issuer
) -> None:
    certificate, _ = put(tmp_path, issuer)
    certificate.chmod(0o664)
    assert "can be written by others" in checks.judged(checks.CLIENTS, certificate).seen
    certificate.write_text("no certificate")
    assert "it is no certificate" in checks.judged(checks.CLIENTS, certificate).seen
    certificate.unlink()
    item = checks.judged(checks.CLIENTS, certificate)
    assert (item.state, item.severity) == (State.BAD, Severity.HIGH)
    assert "No such file" in item.seen


_STRONG = rsa.generate_private_key(65537, 2048)
_SHORT = rsa.generate_private_key(65537, 1024)  # noqa: S505 - what is to be found


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (_SHORT, "its key is RSA of 1024 bits"),
        (ec.generate_private_key(ec.SECP192R1()), "its key is EC of 192 bits"),
        (_STRONG, ""),
    ],
)
def test_a_key_that_is_too_short_is_told_apart_from_one_that_is_not(
    tmp_path: Path, key: Any, words: str
) -> None:
    item = checks.judged(checks.CLIENTS, foreign(tmp_path / "cert.pem", key, hashes.SHA256()))
    assert (item.state is State.BAD) is bool(words)
    assert words in item.seen


def test_a_key_of_another_kind_is_taken_as_it_is(tmp_path: Path) -> None:
    file = foreign(tmp_path / "cert.pem", ed25519.Ed25519PrivateKey.generate(), None)
    assert checks.judged(checks.CLIENTS, file).state is State.GOOD


@pytest.mark.parametrize(
    ("digest", "issuer", "words"),
    [
        (hashes.SHA1(), "another", "it is signed with SHA1"),  # noqa: S303 - what is to be found
        (hashes.SHA1(), "host", ""),  # noqa: S303 - a root needs no signature
        (hashes.SHA256(), "another", ""),
    ],
)
def test_a_signature_that_can_be_forged_is_weak(digest: Any, issuer: str, words: str) -> None:
    """New versions of cryptography make none."""
    signed: Any = SimpleNamespace(
        public_key=_STRONG.public_key,
        signature_hash_algorithm=digest,
        issuer=issuer,
        subject="host",
    )
    assert certificates.weakness(signed) == words


# libvirt's


def libvirts(directory: Path, *, listens: bool) -> dict[str, Item]:
    names = {"cert_file": "server-cert.pem", "key_file": "server-key.pem", "ca_file": "ca.pem"}
    settings: dict[str, Any] = {key: str(directory / name) for key, name in names.items()}
    return {item.id: item for item in checks.libvirt(settings, listens=listens)}


@pytest.fixture
def _no_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = checks.places.Place("certificate", tmp_path / "nowhere", 0o444)
    monkeypatch.setattr(checks.places, "CLIENT", (place, place))


@pytest.mark.usefixtures("_no_client")
def test_a_host_that_does_not_listen_is_asked_for_no_certificate(tmp_path: Path) -> None:
    assert libvirts(tmp_path, listens=False) == {}


@pytest.mark.usefixtures("_no_client")
def test_a_host_that_listens_needs_a_certificate_and_its_clients_authority(
    tmp_path: Path, issuer: Issuer
) -> None:
    assert {i.state for i in libvirts(tmp_path, listens=True).values()} == {State.BAD}
    put(tmp_path, issuer)
    items = libvirts(tmp_path, listens=False)
    assert items[checks.SERVER.id].state is State.GOOD
    assert items[checks.CLIENTS.id].state is State.BAD, "it is there, and the authority is not"
    (tmp_path / "ca.pem").write_bytes(certificates.pem(issuer.certificate))
    (tmp_path / "ca.pem").chmod(0o444)
    assert {i.state for i in libvirts(tmp_path, listens=True).values()} == {State.GOOD}


def test_a_client_certificate_is_looked_at_with_its_key(
    tmp_path: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [checks.places.Place("", file, 0) for file in put(tmp_path, issuer)]
    monkeypatch.setattr(checks.places, "CLIENT", tuple(places))
    places[1].path.chmod(0o644)
    found = {item.id: item for item in checks.libvirt({"cert_file": "/nowhere"}, listens=False)}
    assert "0644" in found[checks.CLIENT.id].seen


# The consoles'


def test_no_authority_is_asked_for_before_the_first_start(tmp_path: Path) -> None:
    assert list(checks.authority(Paths(state=tmp_path))) == []


def test_the_consoles_authority_and_its_signer_are_looked_at_with_all_their_keys(
    tmp_path: Path, issuer: Issuer
) -> None:
    paths = Paths(state=tmp_path / "state", run=tmp_path / "run")
    directory = paths.console_ca
    directory.mkdir(parents=True)
    for name in ("ca-cert.pem", "signer-cert.pem"):
        (directory / name).write_bytes(certificates.pem(issuer.certificate))
        (directory / name).chmod(0o644)
    unsealed = paths.run / "keys" / "console-signer"
    unsealed.parent.mkdir(parents=True)
    keys = [directory / "ca-key.cred", directory / "signer-key.cred", unsealed]
    for key in keys:
        key.write_text("a key")
        key.chmod(0o600)
    assert {item.state for item in checks.authority(paths)} == {State.GOOD}
    for key, wrong in zip(keys, (checks.AUTHORITY, checks.SIGNER, checks.SIGNER), strict=True):
        key.chmod(0o640)
        (bad,) = [item for item in checks.authority(paths) if item.state is State.BAD]
        assert bad.id == wrong.id
        assert str(key) in bad.seen
        key.chmod(0o600)


def test_a_consoles_key_is_its_vms_groups_and_nobody_elses(tmp_path: Path, issuer: Issuer) -> None:
    assert list(checks.console(tmp_path, "web01")) == []
    _, key = put(tmp_path, issuer, 30 * DAY)
    key.chmod(0o640)
    (item,) = checks.console(tmp_path, "web01")
    assert (item.state, item.subject) == (State.GOOD, "web01")
    key.chmod(0o644)
    (item,) = checks.console(tmp_path, "web01")
    assert item.state is State.BAD

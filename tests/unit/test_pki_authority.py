# SPDX-License-Identifier: GPL-2.0-or-later
"""An authority's directory after a kill: the next one who writes there clears away what it left."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.pki import authority, consoles
from virtwarden.pki.keys import Rest
from virtwarden.system import certificates, credentials, files
from virtwarden.system.certificates import DAY, Purpose

REST = Rest(b"four words by chance")
FOUNDED = {"ca-key.pem", "ca-crl.pem", "ca-cert.pem"}
WHOLE = FOUNDED | {"issued.json", "signer-key.cred", "signer-cert.pem"}


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setattr(os, "fchown", lambda *_: None)  # to root, who a developer need not be
    monkeypatch.setattr(credentials, "run", lambda *_, stdin="": stdin)
    return Paths(state=tmp_path / "state", run=tmp_path / "run")


def as_if_sealed(*words: str, stdin: str = "") -> str:
    return stdin if "encrypt" in words else Path(words[-2]).read_text()


def names(paths: Paths) -> set[str]:
    return {entry.name for entry in paths.console_ca.iterdir()}


def cut_off(act: Callable[[], object], file: str) -> None:
    """Do something and be killed when all of a file is written and it is not in its place yet."""
    put = Path.replace
    with pytest.MonkeyPatch.context() as patch:

        def die(self: Path, target: Path) -> Path:
            if target.name != file:
                return put(self, target)
            patch.setattr(Path, "unlink", lambda *_, **__: None)
            raise SystemExit

        patch.setattr(Path, "replace", die)
        with pytest.raises(SystemExit):
            act()


@pytest.mark.parametrize("file", sorted(FOUNDED))
def test_an_authority_whose_making_was_cut_off_is_made_with_nothing_beside_it(
    paths: Paths, file: str
) -> None:
    cut_off(lambda: consoles.create(paths, REST), file)
    assert any(name.startswith(f".{file}.") for name in names(paths))
    consoles.create(paths, REST)
    assert names(paths) == WHOLE


@pytest.mark.parametrize("file", sorted(WHOLE - FOUNDED))
def test_a_renewal_of_the_signer_clears_away_what_one_that_was_cut_off_left(
    paths: Paths, file: str
) -> None:
    def renew() -> None:
        consoles.renew_signer(paths, lambda _: REST.passphrase)

    consoles.create(paths, REST)
    cut_off(renew, file)
    assert any(name.startswith(f".{file}.") for name in names(paths))
    renew()
    assert names(paths) == WHOLE


@pytest.mark.parametrize("rest", [Rest(), REST], ids=["sealed", "passphrase"])
def test_no_console_gets_a_certificate_of_a_key_and_a_signer_that_are_not_of_one_another(
    paths: Paths, rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "run", as_if_sealed)
    paths.run.mkdir()
    consoles.create(paths, rest)
    cut_off(lambda: consoles.renew_signer(paths, lambda _: rest.passphrase), "signer-cert.pem")
    if rest.passphrase:
        with pytest.raises(HostError) as told:
            consoles.issue(paths, "web01", ())
        assert str(told.value) == (
            "the signer of the console CA must be renewed, which needs the CA's passphrase;"
            " fix: as an admin who knows it: virt-warden pki renew --signer"
        )
        consoles.renew_signer(paths, lambda _: rest.passphrase)
    issued = consoles.issue(paths, "web01", ())
    own, signer = (certificates.load(issued[n], n) for n in ("server-cert.pem", "ca-cert.pem"))
    assert certificates.is_signed_by(own, signer)


def test_a_signer_that_is_just_renewed_is_waited_for(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []

    def unseal(path: Path, name: str) -> str:
        with pytest.raises(BlockingIOError), files.locked(path.parent, wait=False):
            pass
        held.append(name)
        return path.read_text()

    monkeypatch.setattr(credentials, "unseal", unseal)
    paths.run.mkdir()
    consoles.create(paths, REST)
    consoles.issue(paths, "web01", ())
    assert held == ["console-signer"]


def test_a_certificate_that_is_issued_after_one_that_was_cut_off_is_listed_with_the_former_ones(
    paths: Paths,
) -> None:
    above = consoles.ca(paths)
    authority.create(above, REST)
    issuer = authority.issuer_of(above, lambda _: REST.passphrase)

    def issue(name: str) -> None:
        authority.issue(above, issuer, Purpose.CLIENT, name, DAY)

    issue("alice")
    cut_off(lambda: issue("bob"), "issued.json")
    issue("carol")
    assert [each.name for each in authority.issued(above)] == ["alice", "carol"]
    assert names(paths) == FOUNDED | {"issued.json"}


def test_nothing_is_cleared_away_but_what_was_being_written(tmp_path: Path) -> None:
    kept = {"ca-cert.pem", ".ca-cert.pem.old", f"ca-cert.pem.{'0' * 16}", f".{'0' * 16}"}
    for name in (*kept, f".ca-cert.pem.{'0' * 16}"):
        (tmp_path / name).touch()
    files.discard_torn(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == kept

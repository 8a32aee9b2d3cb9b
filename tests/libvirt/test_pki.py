# SPDX-License-Identifier: GPL-2.0-or-later
"""The two authorities: what others' tools say of them, and what a revocation closes."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host import vnc
from tests.host.command import run
from tests.host.domain import Vnc
from tests.host.libvirt import Libvirt
from tests.libvirt.faults import kill_while_writing
from tests.libvirt.warden import PATHS, Warden, as_user
from virtwarden.changes import IssueCertificate, journal
from virtwarden.pki import consoles
from virtwarden.pki.keys import nobody

PASSPHRASE = "four words by chance"
REMOTE_CA = PATHS.state / "remote-ca"
# The tests' host has another name than the certificate, and is nobody's client.
EXPECTED = ("clientcert.pem client certificate", "cannot act as a client", "match the host")
LIBVIRTD_CONF = Path("/etc/libvirt/libvirtd.conf")


@pytest.fixture
def passphrase(tmp_path: Path) -> list[str]:
    file = tmp_path / "passphrase"
    file.write_text(PASSPHRASE + "\n")
    file.chmod(0o600)
    return ["--passphrase-file", str(file)]


@pytest.fixture
def remote(warden: Warden, passphrase: list[str]) -> Iterator[Warden]:
    """A host with an authority for its remote administration, and its own certificate."""
    warden.command("pki", "init", "remote", *passphrase)
    warden.command("pki", "server", "localhost", "127.0.0.1", *passphrase)
    yield warden
    run("rm", "-rf", str(REMOTE_CA), "/etc/pki/CA", "/etc/pki/libvirt")


@pytest.fixture
def listening(remote: Warden) -> Iterator[Libvirt]:
    """libvirtd, reached by TLS."""
    former = LIBVIRTD_CONF.read_text()
    LIBVIRTD_CONF.write_text('listen_tls = 1\nlisten_tcp = 0\nlisten_addr = "127.0.0.1"\n')
    remote.libvirt.restart("--listen")
    yield remote.libvirt
    LIBVIRTD_CONF.write_text(former)
    remote.libvirt.restart()


@pytest.fixture
def _no_consoles_authority() -> Iterator[None]:
    """No start has made one yet; the next one after the test makes another."""

    def remove() -> None:
        run("rm", "-rf", str(PATHS.console_ca), str(PATHS.run / "keys" / "console-signer"))

    remove()
    yield
    remove()


def client(warden: Warden, name: str, passphrase: list[str], directory: Path) -> Path:
    bundle = directory / name
    warden.command("pki", "client", "remote", name, "--out", str(bundle), *passphrase)
    return bundle


def complaints_of_libvirt() -> list[str]:
    """What virt-pki-validate(1) finds wrong besides; without the advice it gives.

    libvirt 9's never fails, and begins its complaints so; later ones say which check failed.
    """
    wrong = ("Did not", "The machine", "The CA certificate and", "The server", "Missing", "Make")
    return [
        line
        for line in run("virt-pki-validate", check=False).stdout.splitlines()
        if (line.startswith(wrong) or ": FAIL" in line or ": WARN" in line)
        and not any(expected in line for expected in EXPECTED)
    ]


def by_tls(bundle: Path) -> subprocess.CompletedProcess[str]:
    """Ask libvirt, over TLS, for its list of domains."""
    uri = f"qemu+tls://localhost/system?pkipath={bundle}"
    return run("virsh", "-q", "-c", uri, "list", "--name", check=False)


def test_the_tools_of_others_find_nothing_wrong(
    remote: Warden, passphrase: list[str], tmp_path: Path
) -> None:
    assert complaints_of_libvirt() == []
    server = "/etc/pki/libvirt/servercert.pem"
    bundle = client(remote, "alice", passphrase, tmp_path)
    for certificate, purpose in ((server, "sslserver"), (bundle / "clientcert.pem", "sslclient")):
        ca = "/etc/pki/CA/cacert.pem"
        run(
            "openssl",
            "verify",
            "-x509_strict",
            "-CAfile",
            ca,
            "-purpose",
            purpose,
            str(certificate),
        )
        run("certtool", "--verify", "--load-ca-certificate", ca, "--infile", str(certificate))
    run("openssl", "crl", "-in", "/etc/pki/CA/cacrl.pem", "-CAfile", ca, "-noout")


@pytest.mark.usefixtures("_no_consoles_authority")
def test_a_certificate_of_the_authority_opens_libvirt_and_no_other_does(
    listening: Libvirt, remote: Warden, passphrase: list[str], tmp_path: Path
) -> None:
    good = client(remote, "alice", passphrase, tmp_path)
    assert by_tls(good).returncode == 0
    none = tmp_path / "none"
    none.mkdir()
    (none / "cacert.pem").write_bytes((good / "cacert.pem").read_bytes())
    assert by_tls(none).returncode != 0
    other = tmp_path / "other"
    remote.command("pki", "init", "consoles", *passphrase)
    remote.command("pki", "client", "consoles", "alice", "--out", str(other), *passphrase)
    (other / "cacert.pem").chmod(0o644)
    (other / "cacert.pem").write_bytes((good / "cacert.pem").read_bytes())
    assert by_tls(other).returncode != 0
    run("rm", "-rf", str(PATHS.console_ca))


def test_what_is_revoked_opens_nothing_after_libvirt_has_read_the_list(
    listening: Libvirt, remote: Warden, passphrase: list[str], tmp_path: Path
) -> None:
    alice, bob = (client(remote, name, passphrase, tmp_path) for name in ("alice", "bob"))
    said = remote.command("pki", "revoke", "remote", "alice", *passphrase).stdout
    assert "of alice is revoked" in said
    listening.restart("--listen")
    assert by_tls(alice).returncode != 0
    assert by_tls(bob).returncode == 0
    again = remote.command("pki", "revoke", "remote", "alice", *passphrase, check=False)
    assert "the remote CA issued no valid certificate for alice" in again.stderr
    listed = json.loads(remote.command("pki", "list", "remote", "--json").stdout)
    assert [(one["name"], bool(one["revoked"])) for one in listed[1:]] == [
        ("alice", True),
        ("bob", False),
    ]


@pytest.mark.usefixtures("_no_consoles_authority")
def test_a_passphrase_that_is_wrong_short_or_open_to_others_is_refused(
    remote: Warden, tmp_path: Path
) -> None:
    file = tmp_path / "wrong"
    file.write_text("another passphrase")
    for mode, words in ((0o600, "wrong passphrase"), (0o640, "users other than root can read it")):
        file.chmod(mode)
        done = remote.command("pki", "server", "--passphrase-file", str(file), check=False)
        assert words in done.stderr
    file.chmod(0o600)
    file.write_text("short")
    done = remote.command("pki", "init", "consoles", "--passphrase-file", str(file), check=False)
    assert "fewer than 12 characters" in done.stderr
    done = remote.command("pki", "init", "remote", "--sealed", check=False)
    assert "already exists" in done.stderr


def test_no_key_of_an_authority_is_on_the_disk_in_the_clear(
    remote: Warden, passphrase: list[str]
) -> None:
    remote.started("web01", vnc=Vnc())
    for directory in (REMOTE_CA, PATHS.console_ca):
        for file in directory.rglob("*"):
            assert b"BEGIN PRIVATE KEY" not in file.read_bytes(), file
            if "key" in file.name:
                assert file.stat().st_mode & 0o777 == 0o600
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in (REMOTE_CA / "ca-key.pem").read_bytes()
    unsealed = PATHS.run / "keys" / "console-signer"
    assert as_user("vmw-web01", unsealed.read_bytes) == "PermissionError"


class TestNss:
    @pytest.fixture
    def kept_in_nss(self, warden: Warden, passphrase: list[str]) -> Iterator[Warden]:
        """An authority whose making was cut off once before."""
        cut_off = REMOTE_CA / "nss"
        cut_off.mkdir(parents=True)
        (cut_off / "key4.db").write_bytes(b"half")
        warden.command("pki", "init", "--nss", "remote", *passphrase)
        yield warden
        run("rm", "-rf", str(REMOTE_CA), "/etc/pki/CA", "/etc/pki/libvirt")

    def test_a_key_in_an_nss_database_signs_and_lies_nowhere_else(
        self, kept_in_nss: Warden, passphrase: list[str]
    ) -> None:
        kept_in_nss.command("pki", "server", "localhost", *passphrase)
        assert complaints_of_libvirt() == []
        listed = run("certutil", "-K", "-d", f"sql:{REMOTE_CA}/nss", "-f", passphrase[1]).stdout
        assert "ec" in listed
        assert "remote" in listed
        assert not list(REMOTE_CA.glob("ca-key.*"))
        for file in (REMOTE_CA / "nss").iterdir():
            assert file.stat().st_mode & 0o077 == 0
            assert b"PRIVATE KEY" not in file.read_bytes()

    def test_another_passphrase_gives_no_key(self, kept_in_nss: Warden, tmp_path: Path) -> None:
        file = tmp_path / "wrong"
        file.write_text("another passphrase")
        file.chmod(0o600)
        done = kept_in_nss.command("pki", "server", "--passphrase-file", str(file), check=False)
        assert done.returncode == 1
        assert "the key cannot be had" in done.stderr
        assert "certutil -K -d sql:" in done.stderr

    def test_it_cannot_be_sealed_as_well(self, warden: Warden) -> None:
        done = warden.command("pki", "init", "--nss", "--sealed", "remote", check=False)
        assert "an NSS database needs a passphrase" in done.stderr
        assert not REMOTE_CA.exists()


def test_a_consoles_certificate_is_renewed_under_the_running_vm(warden: Warden) -> None:
    qemu = warden.started("web01", vnc=Vnc())
    tls = PATHS.cell(warden.status("web01")["uuid"]) / "tls"
    before = tls.joinpath("server-cert.pem").read_bytes()
    assert "not due" in warden.command("pki", "renew").stdout
    assert tls.joinpath("server-cert.pem").read_bytes() == before
    assert "new console certificate" in warden.command("pki", "renew", "--now").stdout
    after = tls.joinpath("server-cert.pem").read_bytes()
    assert after != before
    assert warden.qemu("web01").pid == qemu.pid
    assert warden.status("web01")["breaches"] == []
    assert _served(warden) == _first(after)


def _served(warden: Warden) -> str:
    served = vnc.certificate("127.0.0.1", warden.vnc_port("web01"))
    return ssl.DER_cert_to_PEM_cert(served).strip()


def _first(chain: bytes) -> str:
    end = "-----END CERTIFICATE-----"
    return chain.decode().partition(end)[0] + end


def _issued(warden: Warden) -> IssueCertificate:
    (change,) = (
        record.change
        for record in journal.records(PATHS, warden.status("web01")["uuid"])
        if isinstance(record.change, IssueCertificate)
    )
    return change


def test_a_new_certificate_that_qemu_did_not_take_is_given_to_it_again(warden: Warden) -> None:
    warden.started("web01", vnc=Vnc())
    change = _issued(warden)
    change.apply(PATHS, {})  # as a renewal leaves it whose word to QEMU fails
    new = _first((Path(change.directory) / "server-cert.pem").read_bytes())
    assert _served(warden) != new
    assert "not due" in warden.command("pki", "renew").stdout
    assert _served(warden) == new


def test_a_renewal_that_was_cut_off_is_done_again(warden: Warden) -> None:
    warden.started("web01", vnc=Vnc())
    change = _issued(warden)
    child = os.fork()
    if child == 0:
        kill_while_writing(consoles.FILES.index("server-key.pem") + 1)
        change.apply(PATHS, {})
        os._exit(0)
    os.waitpid(child, 0)
    assert "new console certificate" in warden.command("pki", "renew").stdout
    assert warden.status("web01")["breaches"] == []


def test_a_new_signer_makes_every_console_due(warden: Warden) -> None:
    warden.started("web01", vnc=Vnc())
    warden.started("web02")
    said = warden.command("pki", "renew", "--signer").stdout
    assert "web01 has a new console certificate" in said
    assert "web02 has no console with a certificate" in said
    assert "not due" in warden.command("pki", "renew", "web01").stdout


@pytest.mark.usefixtures("_no_consoles_authority")
def test_a_new_signer_signs_at_once_also_where_the_former_one_just_did() -> None:
    def issued() -> bytes:
        return consoles.issue(PATHS, "one", ("localhost",))["server-cert.pem"]

    PATHS.run.mkdir(mode=0o711, exist_ok=True)
    former = issued()
    assert not consoles.is_due(PATHS, issued())
    consoles.renew_signer(PATHS, nobody)
    assert consoles.is_due(PATHS, former)
    assert not consoles.is_due(PATHS, issued())


@pytest.mark.usefixtures("_no_consoles_authority")
def test_an_authority_whose_making_is_killed_at_any_file_is_made_whole_at_the_next_start() -> None:
    PATHS.run.mkdir(mode=0o711, exist_ok=True)
    consoles.issue(PATHS, "one", ("localhost",))
    whole = {entry.name for entry in PATHS.console_ca.iterdir()}
    for which in range(1, len(whole) + 1):
        run("rm", "-rf", str(PATHS.console_ca), str(PATHS.run / "keys" / "console-signer"))
        child = os.fork()
        if child == 0:
            kill_while_writing(which)
            consoles.issue(PATHS, "one", ("localhost",))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status)
        assert any(entry.name.startswith(".") for entry in PATHS.console_ca.iterdir())
        consoles.issue(PATHS, "one", ("localhost",))
        assert {entry.name for entry in PATHS.console_ca.iterdir()} == whole


def test_a_boot_without_the_unsealed_key_starts_all_the_same(warden: Warden) -> None:
    warden.started("web01", vnc=Vnc())
    warden.libvirt.destroy("web01")
    (PATHS.run / "keys" / "console-signer").unlink()
    warden.libvirt.start("web01")
    assert warden.status("web01")["breaches"] == []

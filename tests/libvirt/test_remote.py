# SPDX-License-Identifier: GPL-2.0-or-later
"""Remote administration: what the check finds, and each way in set up, used, and taken back."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.command import run
from tests.host.libvirt import Libvirt
from tests.libvirt.warden import PATHS, Warden

CONF = Path("/etc/libvirt/libvirtd.conf")
SSHD = Path("/etc/ssh/sshd_config.d/50-virt-warden.conf")
LEFT = ("/etc/pki/CA", "/etc/pki/libvirt", "/etc/libvirt/passwd.db")


@pytest.fixture
def passphrase(tmp_path: Path) -> list[str]:
    file = tmp_path / "passphrase"
    file.write_text("four words by chance")
    file.chmod(0o600)
    return ["--passphrase-file", str(file)]


@pytest.fixture
def host(warden: Warden, passphrase: list[str]) -> Iterator[Warden]:
    """A host with its certificate; libvirt's configuration is put back at the end."""
    conf = CONF.read_text()
    warden.command("pki", "init", "remote", *passphrase)
    warden.command("pki", "server", "localhost", *passphrase)
    yield warden
    CONF.write_text(conf)
    warden.libvirt.restart()
    run("rm", "-rf", str(PATHS.state / "remote-ca"), str(PATHS.state / "remote"), *LEFT)


def bundle(warden: Warden, name: str, passphrase: list[str], directory: Path) -> Path:
    warden.command("pki", "client", "remote", name, "--out", str(directory / name), *passphrase)
    return directory / name


def by_tls(pki: Path, *auth: str) -> subprocess.CompletedProcess[str]:
    uri = f"qemu+tls://localhost/system?pkipath={pki}{''.join(auth)}"
    return run("virsh", "-q", "-c", uri, "list", "--name", check=False)


def check(warden: Warden) -> str:
    return warden.command("remote", "check", check=False).stdout


def test_tls_lets_in_whom_it_names_and_no_other_of_the_same_authority(
    host: Warden, passphrase: list[str], tmp_path: Path
) -> None:
    alice = bundle(host, "alice", passphrase, tmp_path)
    done = host.command("remote", "setup", "tls", "--yes")
    assert '+tls_allowed_dn_list = [ "CN=alice"]' in done.stdout
    bob = bundle(host, "bob", passphrase, tmp_path)
    host.libvirt.restart("--listen")
    assert by_tls(alice).returncode == 0
    refused = by_tls(bob)
    assert refused.returncode != 0
    assert "remote.tls" not in check(host)


def test_what_setup_wrote_is_put_back_to_the_letter(
    host: Warden, passphrase: list[str], tmp_path: Path
) -> None:
    CONF.write_text("# the admin's own\nmax_clients = 77\n")
    bundle(host, "alice", passphrase, tmp_path)
    host.command("remote", "setup", "tls", "--yes")
    assert "max_clients = 77" in CONF.read_text()
    again = host.command("remote", "setup", "tls", "--yes", check=False)
    assert "virt-warden remote undo tls" in again.stderr
    host.command("remote", "undo", "tls")
    assert CONF.read_text() == "# the admin's own\nmax_clients = 77\n"
    never = host.command("remote", "undo", "tls", check=False)
    assert "is not set up by virt-warden" in never.stderr


def test_what_was_edited_since_is_left_to_its_editor(
    host: Warden, passphrase: list[str], tmp_path: Path
) -> None:
    bundle(host, "alice", passphrase, tmp_path)
    before = CONF.read_text()
    host.command("remote", "setup", "tls", "--yes")
    written = CONF.read_text()
    CONF.write_text(written + "max_clients = 78\n")
    undone = host.command("remote", "undo", "tls", check=False)
    assert undone.returncode != 0
    assert "was edited since" in undone.stdout
    assert f"rm {PATHS.state}/remote/tls.json" in undone.stderr
    assert CONF.read_text() == written + "max_clients = 78\n"
    CONF.write_text(written)
    host.command("remote", "undo", "tls")
    assert CONF.read_text() == before


def test_ways_over_the_same_file_are_undone_the_last_one_first(
    host: Warden, passphrase: list[str], tmp_path: Path
) -> None:
    bundle(host, "alice", passphrase, tmp_path)
    before = CONF.read_text()
    host.command("remote", "setup", "tls", "--yes")
    by_tls_alone = CONF.read_text()
    host.command("remote", "setup", "sasl", "--yes")
    within = CONF.read_text()
    refused = host.command("remote", "undo", "tls", check=False)
    assert refused.returncode != 0
    assert "virt-warden remote undo sasl; then virt-warden remote undo tls" in refused.stderr
    assert CONF.read_text() == within
    undone = host.command("remote", "undo", "sasl").stdout
    assert CONF.read_text() == by_tls_alone
    assert "enable --now libvirtd.socket libvirtd-tls.socket" in undone
    assert "disable libvirtd-tls.socket" not in undone
    assert "disable libvirtd-tls.socket" in host.command("remote", "undo", "tls").stdout
    assert CONF.read_text() == before


def test_tls_that_listened_before_setup_listens_after_undo(
    host: Warden, passphrase: list[str], tmp_path: Path
) -> None:
    bundle(host, "alice", passphrase, tmp_path)
    enabled = Path("/etc/systemd/system/sockets.target.wants/libvirtd-tls.socket")
    enabled.parent.mkdir(parents=True, exist_ok=True)
    enabled.symlink_to("/lib/systemd/system/libvirtd-tls.socket")
    try:
        host.command("remote", "setup", "tls", "--yes")
        undone = host.command("remote", "undo", "tls").stdout
    finally:
        enabled.unlink()
    assert "enable --now libvirtd.socket libvirtd-tls.socket" in undone
    assert "disable libvirtd-tls.socket" not in undone


def test_nothing_is_written_before_the_admin_says_yes(
    host: Warden, passphrase: list[str], tmp_path: Path
) -> None:
    bundle(host, "alice", passphrase, tmp_path)
    before = CONF.read_text()
    done = run("virt-warden", "remote", "setup", "tls", stdin="n\n", check=False)
    assert "tls_allowed_dn_list" in done.stdout
    assert (done.returncode, CONF.read_text()) == (1, before)


def test_sasl_asks_for_a_password_within_tls(
    host: Warden, passphrase: list[str], tmp_path: Path
) -> None:
    alice = bundle(host, "alice", passphrase, tmp_path)
    host.command("remote", "setup", "sasl", "--yes", "--allow", "CN=alice")
    run(
        "saslpasswd2",
        "-p",
        "-c",
        "-a",
        "libvirt",
        "-f",
        "/etc/libvirt/passwd.db",
        "carol",
        stdin="s3cret",
    )
    Path("/etc/libvirt/passwd.db").chmod(0o600)
    host.libvirt.restart("--listen")
    for password, expected in (("s3cret", True), ("wrong", False)):
        auth = tmp_path / f"auth-{password}"
        auth.write_text(
            "[credentials-c]\nauthname=carol\n"
            f"password={password}\n[auth-libvirt-localhost]\ncredentials=c\n"
        )
        assert (by_tls(alice, f"&authfile={auth}").returncode == 0) is expected
    assert "[remote.sasl]" not in check(host)
    Path("/etc/libvirt/passwd.db").chmod(0o644)
    assert "has mode 0644" in check(host)


@pytest.mark.parametrize(
    ("lines", "options", "item"),
    [
        ('listen_tls = 0\nlisten_tcp = 1\nauth_tcp = "none"\n', ["--listen"], "remote.plain"),
        ("listen_tcp = 1\n", [], "remote.plain"),
        ("tls_no_verify_certificate = 1\n", ["--listen"], "remote.tls.verify"),
        ("listen_tls = 1\n", ["--listen"], "remote.tls.names"),
        ('tls_priority = "NORMAL:+VERS-TLS1.0"\n', ["--listen"], "remote.tls.priority"),
        ('auth_unix_rw = "none"\nunix_sock_rw_perms = "0777"\n', [], "remote.socket"),
        ('unix_sock_rw_perms = "0777"\n', [], "remote.crowd"),
        ('unix_sock_rw_perms = "0770"\nunix_sock_ro_perms = "0777"\n', [], "remote.crowd"),
    ],
)
def test_each_open_door_is_found(host: Warden, lines: str, options: list[str], item: str) -> None:
    CONF.write_text(lines)
    host.libvirt.restart(*options)
    assert f"[{item}]" in check(host)


def test_sockets_for_root_and_one_group_are_no_open_door(host: Warden) -> None:
    CONF.write_text('unix_sock_rw_perms = "0770"\nunix_sock_ro_perms = "0770"\n')
    host.libvirt.restart()
    assert "[remote.crowd]" not in check(host)


def test_a_key_that_others_read_is_found(host: Warden) -> None:
    CONF.write_text('tls_allowed_dn_list = ["CN=a"]\n')
    host.libvirt.restart("--listen")
    assert "[remote.tls.certificate]" not in check(host)
    key = Path("/etc/pki/libvirt/private/serverkey.pem")
    key.chmod(0o444)
    assert f"{key} has mode 0444" in check(host)


def test_a_rule_that_lets_everyone_in_and_a_member_of_the_group_are_found(host: Warden) -> None:
    rules = Path("/etc/polkit-1/rules.d/10-open.rules")
    condition = 'if (a.id == "org.libvirt.unix.manage"{}) return polkit.Result.YES;'
    text = "polkit.addRule(function(a, subject) {{ " + condition + " }});"
    run("useradd", "dave")
    run("gpasswd", "-a", "dave", "libvirt")
    try:
        rules.write_text(text.format(""))
        found = check(host)
        assert str(rules) in found
        assert "in it: dave" in found
        rules.write_text(text.format(' && subject.isInGroup("ops")'))
        assert str(rules) not in check(host)
    finally:
        rules.unlink()
        run("userdel", "dave")


@pytest.fixture
def sshd(libvirt: Libvirt) -> Iterator[None]:
    run("mkdir", "-p", "/run/sshd")
    run("ssh-keygen", "-A")
    daemon = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-p", "2222", "-o", "ListenAddress=127.0.0.1"]
    )
    yield
    daemon.terminate()
    daemon.wait()


def test_ssh_with_a_key_reaches_libvirt(libvirt: Libvirt, sshd: None, tmp_path: Path) -> None:
    key, allowed = tmp_path / "key", Path("/root/.ssh/authorized_keys")
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    allowed.parent.mkdir(mode=0o700, exist_ok=True)
    former = allowed.read_text() if allowed.exists() else None
    uri = f"qemu+ssh://root@127.0.0.1:2222/system?keyfile={key}&no_verify=1&no_tty=1"
    try:
        assert run("virsh", "-q", "-c", uri, "list", check=False).returncode != 0
        allowed.write_text(key.with_suffix(".pub").read_text())
        allowed.chmod(0o600)
        assert run("virsh", "-q", "-c", uri, "list", check=False).returncode == 0
    finally:
        allowed.unlink() if former is None else allowed.write_text(former)


def test_setting_up_ssh_takes_the_password_away_from_who_manages_libvirt(host: Warden) -> None:
    run("useradd", "--create-home", "erin")
    run("gpasswd", "-a", "erin", "libvirt")
    try:
        assert "a password is enough for erin" in check(host)
        host.command("remote", "setup", "ssh", "--yes")
        assert "[remote.ssh]" not in check(host)
        host.command("remote", "undo", "ssh")
        assert not SSHD.exists()
        assert "a password is enough for erin" in check(host)
    finally:
        run("userdel", "--remove", "erin", check=False)


def test_where_a_command_fails_all_is_as_it_was_and_setup_can_be_repeated(host: Warden) -> None:
    run("mkdir", "-p", "/run/sshd")
    run("ssh-keygen", "-A")
    broken = SSHD.with_name("10-broken.conf")
    broken.write_text("NoSuchOption yes\n")
    try:
        failed = host.command("remote", "setup", "ssh", "--yes", check=False)
        assert failed.returncode != 0
        assert "sshd -t` failed" in failed.stderr
        assert "no file was changed" in failed.stderr
        assert len(failed.stderr.splitlines()) == 1
        assert not SSHD.exists()
    finally:
        broken.unlink()
    host.command("remote", "setup", "ssh", "--yes")
    host.command("remote", "undo", "ssh")

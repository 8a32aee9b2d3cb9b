# SPDX-License-Identifier: GPL-2.0-or-later
"""Viewers who are asked by SASL: by a ticket with a name and a long password, or by Kerberos."""

from __future__ import annotations

import configparser
import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.host import consoled, kerberos, sasl, vnc
from tests.host.command import run
from tests.host.domain import Vnc
from tests.host.libvirt import Libvirt
from tests.host.syslog import Syslog
from tests.libvirt.warden import ENFORCING, LEFT_ALONE, PATHS, Warden, as_user, set_policy, until

ALICE = "alice-s own 1"
TICKETS = f"""{ENFORCING}
[console]
sasl = "tickets"
ticket_seconds = 30
operators = ["alice"]
[[domain]]
match = "web-short"
[domain.console]
ticket_seconds = 5
"""
KEYTAB = Path("/etc/virt-warden/vnc.keytab")
KERBEROS = f"""{ENFORCING}
[console]
sasl = "kerberos"
client_certificates = "required"
operators = ["alice", "@helpdesk", "mallory@OTHER.ORG"]
"""
BUNDLE = Path("/run/test-sasl-alice")
CA = Path("/run/test-sasl-ca.pem")


HANGS_UP = f"""
import json, socket
connection = socket.socket(socket.AF_UNIX)
connection.connect("/run/virt-warden/console.sock")
connection.sendall(b'{{"domain": "web01"}}\\n')
connection.recv(1000)
connection.sendall(json.dumps({{"password": "{ALICE}"}}).encode() + b"\\n")
connection.close()
"""


class TestTickets:
    @pytest.fixture(scope="class")
    def running(self, libvirt: Libvirt) -> Iterator[Warden]:
        """Two consoles that ask by SASL, another VM, and an operator."""
        set_policy(TICKETS)
        warden = Warden(libvirt)
        for name in ("web01", "web-short"):
            warden.started(name, vnc=Vnc())
        warden.started("other")
        with consoled.account("alice", ALICE), consoled.console_service():
            yield warden
        libvirt.remove_domains()
        set_policy(LEFT_ALONE)

    def test_a_ticket_opens_the_console_once(self, running: Warden, syslog: Syslog) -> None:
        given = ticket()
        assert given["username"] == "alice"
        assert len(given["password"]) == 24
        assert "web01" in look(given)
        assert "operator=alice" in syslog.wait_for("event=console-opened", 20)
        refused(given)
        assert given["password"] not in "\n".join(syslog.lines())

    def test_another_password_or_name_lets_nobody_in(self, running: Warden) -> None:
        given = ticket()
        # VNC's own would take the first eight characters for the whole.
        refused(given | {"password": given["password"][:8] + "x" * 16})
        refused(given | {"username": "bob"})
        assert "web01" in look(given)

    def test_nothing_else_is_offered(self, running: Warden) -> None:
        port = running.vnc_port("web01")
        assert vnc.security_types("127.0.0.1", port) == [vnc.SECURITY_VENCRYPT]
        assert vnc.vencrypt_subtypes("127.0.0.1", port) == [vnc.VENCRYPT_X509_SASL]
        given = ticket()
        for mechanism in ("PLAIN", "ANONYMOUS", "SCRAM-SHA-1", "DIGEST-MD5"):
            with pytest.raises(vnc.LoginRefusedError, match="offers"):
                look(given, mechanism)
        assert running.status("web01")["breaches"] == []

    def test_a_ticket_that_has_run_out_lets_nobody_in(
        self, running: Warden, syslog: Syslog
    ) -> None:
        given = ticket("web-short")
        syslog.wait_for("event=console-unused", 20)
        refused(given)

    def test_the_end_of_an_earlier_ticket_is_not_that_of_a_later_one(
        self, running: Warden, syslog: Syslog
    ) -> None:
        ticket("web-short")
        later = ticket("web-short")
        syslog.wait_for("event=console-unused", 20)
        assert "web-short" in look(later)

    def test_a_service_that_is_stopped_takes_its_ticket_back(
        self, running: Warden, syslog: Syslog
    ) -> None:
        given = ticket()
        database = PATHS.cell(running.status("web01")["uuid"]) / "sasl" / "sasldb2"
        assert database.stat().st_size > 0
        pids = map(int, run("pgrep", "-f", "virt-warden console --serve").stdout.split())
        os.kill(max(pids), signal.SIGTERM)
        until(lambda: database.stat().st_size == 0)
        refused(given)

    def test_a_service_that_is_killed_leaves_a_ticket_that_is_revoked(
        self, running: Warden, syslog: Syslog
    ) -> None:
        """QEMU knows no end of a password with SASL."""
        given = ticket()
        consoled.kill_services()
        run("/usr/sbin/virt-warden", "console", "--revoke")
        assert "operator=alice" in syslog.wait_for("event=console-revoked", 20)
        refused(given)

    def test_who_asks_and_hangs_up_leaves_no_ticket(self, running: Warden, syslog: Syslog) -> None:
        database = PATHS.cell(running.status("web01")["uuid"]) / "sasl" / "sasldb2"
        run("runuser", "-u", "alice", "--", "/usr/bin/python3", "-c", HANGS_UP, check=False)
        syslog.wait_for("event=console-refused", 20)
        until(lambda: database.stat().st_size == 0)

    def test_only_the_vms_own_user_reads_what_its_viewers_are_asked(self, running: Warden) -> None:
        given = ticket()
        directory = PATHS.cell(running.status("web01")["uuid"]) / "sasl"
        for file in directory.iterdir():
            found = file.stat()
            assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o640)
            assert as_user("vmw-other", file.read_bytes) == "PermissionError"
            assert as_user("vmw-web01", lambda f=file: f.open("ab")) == "PermissionError"  # type: ignore[misc]
        assert "web01" in look(given)

    def test_nothing_of_it_is_left_after_the_stop(self, running: Warden) -> None:
        uuid = running.status("web-short")["uuid"]
        ticket("web-short")
        running.libvirt.destroy("web-short")
        until(lambda: not PATHS.cell(uuid).exists())
        running.libvirt.start("web-short")
        assert running.status("web-short")["breaches"] == []


class TestKerberos:
    @pytest.fixture(scope="class")
    def running(self, libvirt: Libvirt) -> Iterator[Warden]:
        """A console that asks for a Kerberos ticket, another VM, and a realm."""
        set_policy(KERBEROS)
        warden = Warden(libvirt)
        with kerberos.realm(KEYTAB):
            warden.started("web01", vnc=Vnc())
            run("rm", "-rf", str(BUNDLE))
            run("virt-warden", "pki", "client", "consoles", "alice", "--out", str(BUNDLE))
            set_policy(ENFORCING)
            warden.started("other")
            set_policy(KERBEROS)
            yield warden
            libvirt.remove_domains()
        set_policy(LEFT_ALONE)

    def test_an_operator_of_the_policy_gets_in_and_nobody_else(self, running: Warden) -> None:
        assert "web01" in look_by_kerberos(running, "alice")
        with pytest.raises(vnc.LoginRefusedError):
            look_by_kerberos(running, "mallory")
        assert running.status("web01")["breaches"] == []

    def test_a_kerberos_ticket_without_a_certificate_lets_nobody_in(self, running: Warden) -> None:
        with pytest.raises(vnc.LoginRefusedError):
            look_by_kerberos(running, "alice", certificate=False)

    def test_the_key_is_readable_by_that_vms_user_while_it_runs(self, running: Warden) -> None:
        assert as_user("vmw-web01", KEYTAB.read_bytes) != "PermissionError"
        assert as_user("vmw-other", KEYTAB.read_bytes) == "PermissionError"
        running.libvirt.destroy("web01")
        assert as_user("vmw-web01", KEYTAB.read_bytes) == "PermissionError"
        running.libvirt.start("web01")

    def test_no_other_ticket_is_given_out_for_it(self, running: Warden) -> None:
        with consoled.console_service():
            done = run("virt-warden", "console", "web01", check=False)
        assert "asks for a Kerberos ticket" in done.stderr


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: None, "is not a keytab"),
        (lambda: (KEYTAB.write_bytes(b""), KEYTAB.chmod(0o644)), "can be read by others"),
    ],
)
def test_a_keytab_that_is_missing_or_open_is_refused(
    warden: Warden, make: Callable[[], object], words: str
) -> None:
    set_policy(KERBEROS)
    warden.enrolled("web01", vnc=Vnc())
    make()
    line = warden.refusal("web01")
    KEYTAB.unlink(missing_ok=True)
    assert words in line


def test_a_keytab_alone_which_a_guest_could_read_is_refused(warden: Warden) -> None:
    set_policy(KERBEROS.replace('client_certificates = "required"\n', ""))
    warden.enrolled("web01", vnc=Vnc())
    KEYTAB.write_bytes(b"")
    KEYTAB.chmod(0o600)
    line = warden.refusal("web01")
    KEYTAB.unlink()
    assert 'client_certificates = "required" beside it' in line


def look_by_kerberos(warden: Warden, who: str, *, certificate: bool = True) -> str:
    steps = sasl.kerberos(kerberos.host_principal(), kerberos.ticket(who))
    ca = PATHS.console_ca / "ca-cert.pem"
    own = (str(BUNDLE / "clientcert.pem"), str(BUNDLE / "clientkey.pem")) if certificate else None
    port = warden.vnc_port("web01")
    return vnc.login_by_sasl("127.0.0.1", port, ca, "GSSAPI", steps, certificate=own)


def test_without_tls_it_is_refused(warden: Warden) -> None:
    set_policy(TICKETS.replace("[console]", '[console]\ntls = "off"', 1))
    warden.enrolled("web01", vnc=Vnc())
    assert "sasl needs tls" in warden.refusal("web01")


def ticket(domain: str = "web01") -> dict[str, str]:
    """What the viewer's file says, for alice."""
    command = ("/usr/sbin/virt-warden", "console", domain, "--out", "/home/alice")
    run("runuser", "-u", "alice", "--", *command, stdin=f"{ALICE}\n")
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(f"/home/alice/{domain}.vv")
    return dict(parser["virt-viewer"])


def look(given: dict[str, str], mechanism: str = "SCRAM-SHA-256") -> str:
    CA.write_text(given["ca"].replace("\\n", "\n"))
    steps = sasl.scram(given["username"], given["password"])
    return vnc.login_by_sasl(given["host"], int(given["port"]), CA, mechanism, steps)


def refused(given: dict[str, str]) -> None:
    with pytest.raises((vnc.LoginRefusedError, ValueError)):
        look(given)

# SPDX-License-Identifier: GPL-2.0-or-later
"""A ticket lets one viewer look at one console, once, for those whom the policy names."""

from __future__ import annotations

import configparser
import json
import pwd
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.host import consoled, vnc
from tests.host.command import run
from tests.host.domain import Vnc
from tests.host.libvirt import Libvirt
from tests.host.screenshot import seen
from tests.host.service import service as running_service
from tests.host.syslog import Syslog
from tests.libvirt.warden import ENFORCING, LEFT_ALONE, PATHS, Warden, as_user, set_policy
from virtwarden.consoled import quota
from virtwarden.system import files

ALICE, BOB, MALLORY = "alice-s own 1", "bob-s own 2", "mallory-s own 3"
OWN = {"alice": ALICE, "bob": BOB, "mallory": MALLORY}
POLICY = f"""{ENFORCING}
[console]
ticket_seconds = 30
[[domain]]
match = "web*"
[domain.console]
operators = ["alice", "@helpdesk"]
[[domain]]
match = "web-short"
[domain.console]
ticket_seconds = 5
"""


@pytest.fixture(scope="module")
def running(libvirt: Libvirt) -> Iterator[Warden]:
    """Two consoles that have no password yet, a VM without one, and three people."""
    set_policy(POLICY)
    warden = Warden(libvirt)
    warden.started("web01", vnc=Vnc())
    warden.started("web-short", vnc=Vnc())
    warden.started("db01", vnc=Vnc())
    with (
        consoled.account("alice", ALICE),
        consoled.account("bob", BOB, "helpdesk"),
        consoled.account("mallory", MALLORY),
        consoled.console_service(),
    ):
        yield warden
    libvirt.remove_domains()
    set_policy(LEFT_ALONE)


@pytest.fixture(autouse=True)
def _fresh(running: Warden) -> None:
    set_policy(POLICY)
    consoled.forget_attempts()


def ask(
    who: str, domain: str = "web01", password: str | None = None
) -> subprocess.CompletedProcess[str]:
    """`virt-warden console`, run by somebody; their own password, where none is given."""
    given = OWN.get(who, "") if password is None else password
    command = ("/usr/sbin/virt-warden", "console", domain, "--out", f"/home/{who}")
    if who == "root":
        command = (*command[:-1], "/root")
    return run("runuser", "-u", who, "--", *command, check=False, stdin=f"{given}\n")


def ticket(who: str = "alice", domain: str = "web01") -> dict[str, str]:
    """What the viewer's file says."""
    done = ask(who, domain)
    assert done.returncode == 0, done.stderr
    return viewer_file(who, domain)


def viewer_file(who: str, domain: str) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(home(who) / f"{domain}.vv")
    return dict(parser["virt-viewer"])


def home(who: str) -> Path:
    return Path("/root" if who == "root" else f"/home/{who}")


def look(given: dict[str, str], password: str | None = None) -> str:
    """Connect as remote-viewer does, with nothing but what the file says."""
    ca = Path("/run/test-ca.pem")
    ca.write_text(given["ca"].replace("\\n", "\n"))
    secret = given["password"] if password is None else password
    return vnc.login(given["host"], int(given["port"]), ca, secret, given["host"])


def test_an_operator_gets_in_by_a_ticket_once(running: Warden, syslog: Syslog) -> None:
    given = ticket()
    assert "web01" in look(given)
    opened = syslog.wait_for("event=console-opened", 20)
    assert "operator=alice" in opened
    assert "viewer=127.0.0.1" in opened
    assert "domain=web01" in opened
    assert "operator=alice seconds=30" in syslog.wait_for("event=console-ticket")
    for _ in range(2):
        with pytest.raises(vnc.LoginRefusedError, match="Authentication failed"):
            look(given)
    assert given["password"] not in "\n".join(syslog.lines())


def test_who_came_in_is_told_of_whose_ticket_it_was(running: Warden, syslog: Syslog) -> None:
    ticket("alice")
    given = ticket("bob")
    assert "web01" in look(given)
    assert "operator=bob" in syslog.wait_for("event=console-opened", 20)
    assert "operator=alice" in syslog.wait_for("event=console-unused", 20)
    assert not [line for line in syslog.lines() if "console-opened" in line and "alice" in line]


def test_a_viewer_with_the_tickets_file_alone_sees_the_guests_screen(running: Warden) -> None:
    ticket()
    width, height, pixels = seen(home("alice") / "web01.vv")
    assert len(pixels) == 3 * width * height
    assert len(set(pixels)) > 1


def test_what_is_written_and_printed_is_the_operators_alone(running: Warden) -> None:
    done = ask("alice")
    given = viewer_file("alice", "web01")
    for name in ("web01.vv", "web01.ca.pem"):
        found = (home("alice") / name).stat()
        assert found.st_mode & 0o777 == 0o600
        assert (home("alice") / name).owner() == "alice"
    assert as_user("nobody", (home("alice") / "web01.vv").read_text) == "PermissionError"
    assert f"port {running.vnc_port('web01')}, password {given['password']}" in done.stdout
    assert given["type"] == "vnc"
    assert given["delete-this-file"] == "1"


def test_a_ticket_that_has_run_out_lets_nobody_in(running: Warden, syslog: Syslog) -> None:
    given = ticket(domain="web-short")
    syslog.wait_for("event=console-unused", 30)
    with pytest.raises(vnc.LoginRefusedError, match="Authentication failed"):
        look(given)


def test_a_ticket_whose_service_is_killed_is_revoked_at_once(
    running: Warden, syslog: Syslog
) -> None:
    given = ticket()
    with running_service():
        syslog.wait_for("event=all-seen-to", 20)
        assert "console-revoked" not in "\n".join(syslog.lines())
        consoled.kill_services()
        assert "operator=alice" in syslog.wait_for("event=console-revoked", 20)
    with pytest.raises(vnc.LoginRefusedError, match="Authentication failed"):
        look(given)


def test_and_by_systemd_where_virt_wardens_own_service_does_not_run(
    running: Warden, syslog: Syslog
) -> None:
    given = ticket("bob")
    run("/usr/sbin/virt-warden", "console", "--revoke")
    assert "web01" in look(given)
    given = ticket()
    consoled.kill_services()
    run("/usr/sbin/virt-warden", "console", "--revoke")
    assert "operator=alice" in syslog.wait_for("event=console-revoked", 20)
    with pytest.raises(vnc.LoginRefusedError, match="Authentication failed"):
        look(given)


def test_who_may_see_no_console_is_sent_away_before_saying_a_word(running: Warden) -> None:
    code = (
        "import socket,sys; s=socket.socket(socket.AF_UNIX); s.settimeout(20);"
        "s.connect(sys.argv[1]); print(s.makefile().readline())"
    )
    for who in ("mallory", "nobody"):
        silent = ("/usr/bin/setpriv", f"--reuid={who}", "--clear-groups", "--", "/usr/bin/python3")
        said = run(*silent, "-IS", "-c", code, str(consoled.SOCKET)).stdout
        assert f"whose console {who} may see" in said


def test_a_wrong_password_is_told_and_spends_no_ticket(running: Warden, syslog: Syslog) -> None:
    given = ticket()
    with pytest.raises(vnc.LoginRefusedError):
        look(given, "aB3%wxyz")
    assert "viewer=127.0.0.1" in syslog.wait_for("event=console-denied", 20)
    assert "web01" in look(given)


def test_a_ticket_opens_its_own_console_and_takes_the_former_ones_place(running: Warden) -> None:
    first = ticket()
    second = ticket()
    with pytest.raises(vnc.LoginRefusedError):
        look(first)
    elsewhere = str(running.vnc_port("db01"))
    with pytest.raises(vnc.LoginRefusedError):
        look(second | {"port": elsewhere})
    assert "web01" in look(second)


def test_a_group_of_the_policy_is_let_in_and_root_is_not_asked(running: Warden) -> None:
    assert "web01" in look(ticket("bob"))
    done = ask("root", "db01", password="")
    assert done.returncode == 0, done.stderr
    assert "db01" in look(viewer_file("root", "db01"))


def test_whom_the_policy_does_not_name_gets_the_same_answer_as_for_no_domain(
    running: Warden, syslog: Syslog
) -> None:
    running.started("evil")
    answers = set()
    for who, domain in (("mallory", "web01"), ("alice", "db01"), ("alice", "nowhere")):
        done = ask(who, domain)
        assert done.returncode == 1
        assert "ask" not in done.stdout
        answers.add(done.stderr.replace(domain, "X").replace(who, "Y").split("(")[0][-300:])
    refused = syslog.wait_for("event=console-refused", 20)
    assert "operator=mallory" in refused
    assert len({answer.partition(": there is")[2] for answer in answers}) == 1
    assert "whose console vmw-evil may see" in ask_raw_as("vmw-evil", "web01")


def test_a_refusal_does_not_tell_which_names_the_policy_has(running: Warden) -> None:
    names = ("web01", "web-none", "db01", "nowhere")
    answers = {ask_raw_as("mallory", name).replace(name, "X") for name in names}
    assert len(answers) == 1
    assert "policy.toml" not in answers.pop()


def test_whoever_has_too_many_requests_is_refused_and_others_are_served(running: Warden) -> None:
    uid = pwd.getpwnam("alice").pw_uid
    with ExitStack() as held:
        for number in range(quota.REQUESTS):
            held.enter_context(files.locked(PATHS.console_requests / f"{uid}.{number}"))
        assert "requests for consoles already" in ask("alice").stderr
        assert ask("bob").returncode == 0
        assert ask("root", "web01").returncode == 0
    assert ask("alice").returncode == 0


def ask_raw_as(who: str, domain: str, **more: str) -> str:
    """Speak with the service by hand, as some user; the reason that it gives."""
    said = json.dumps({"domain": domain, **more})
    code = (
        "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "s.sendall(sys.argv[2].encode()+b'\\n'); print(s.makefile().readline())"
    )
    shell = ("/usr/bin/setpriv", f"--reuid={who}", "--clear-groups", "--")
    done = run(*shell, "/usr/bin/python3", "-IS", "-c", code, str(consoled.SOCKET), said)
    return str(json.loads(done.stdout).get("refused", done.stdout))


def test_nobody_asks_in_anothers_name(running: Warden) -> None:
    """Who asks is the kernel's word: neither a name nor that one's password makes a difference."""
    for claim in ("operator", "user", "uid"):
        said = ask_raw_as("mallory", "web01", **{claim: "alice", "password": ALICE})
        assert "whose console mallory may see" in said
    assert ask("mallory", password=ALICE).returncode == 1
    set_policy(POLICY.replace('"alice"', '"mallory"'))
    done = ask("mallory", password=ALICE)
    assert "login of mallory failed" in done.stderr
    assert ask("mallory").returncode == 0


def test_attempts_that_fail_are_slowed_down_and_logged(running: Warden, syslog: Syslog) -> None:
    for _ in range(3):
        done = ask("alice", password="wrong")
        assert "login of alice failed" in done.stderr
    done = ask("alice")
    assert "3 attempts failed; the next one is in" in done.stderr
    assert "wrong" not in "\n".join(syslog.lines())
    refused = [line for line in syslog.lines() if "event=console-refused" in line]
    assert len(refused) == 4
    assert ask("bob").returncode == 0
    consoled.forget_attempts()
    assert ask("alice").returncode == 0


@pytest.mark.parametrize("ended", ["expired", "locked"])
def test_an_account_that_may_not_log_in_gets_no_ticket(running: Warden, ended: str) -> None:
    change = {"expired": ("--expiredate", "1"), "locked": ("--lock",)}[ended]
    undo = {"expired": ("--expiredate", ""), "locked": ("--unlock",)}[ended]
    run("usermod", *change, "alice")
    try:
        assert "login of alice failed" in ask("alice").stderr
    finally:
        run("usermod", *undo, "alice")


@pytest.mark.parametrize(
    "said",
    [
        b"\n",
        b"[]\n",
        b"{\n",
        b'{"domain": 7}\n',
        b"[" * 9000 + b"\n",
        b"x" * 20000,
        b'{"domain": "web01\\u0000"}\n',
        b'{"domain": "\\ud800"}\n',
    ],
)
def test_who_babbles_is_hung_up_on_and_others_are_served(running: Warden, said: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(consoled.SOCKET))
        connection.sendall(said)
        assert b"refused" in connection.makefile("rb").readline()
    assert ask("root", "web01").returncode == 0


def test_a_console_that_no_ticket_opens_is_refused(running: Warden) -> None:
    for settings, words in (
        ('display = "off"', "has no display"),
        ('password = "off"', "needs no password"),
    ):
        set_policy(f"{ENFORCING}[console]\n{settings}\n")
        assert words in ask("root").stderr
    set_policy(LEFT_ALONE)
    assert "does not manage web01" in ask("root").stderr
    set_policy(POLICY)
    running.enrolled("web-off", vnc=Vnc())
    assert "does not run" in ask("root", "web-off").stderr


def test_without_the_service_it_is_told_how_to_have_it(running: Warden) -> None:
    away = consoled.SOCKET.rename(PATHS.run / "away")
    try:
        assert "systemctl enable --now virt-warden-console.socket" in ask("alice").stderr
    finally:
        away.rename(consoled.SOCKET)


def test_everything_else_remains_roots(running: Warden) -> None:
    command = ("runuser", "-u", "alice", "--", "/usr/sbin/virt-warden")
    for words in (("status",), ("enrol", "web01"), ("console", "--serve")):
        done = run(*command, *words, check=False)
        assert done.returncode == 1
        assert "root" in done.stderr

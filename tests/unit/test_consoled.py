# SPDX-License-Identifier: GPL-2.0-or-later
"""Who asks for a console, how often, and what is said; test_tickets.py does it for real."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_host import policy

from virtwarden.consoled import asking, attempts, operators
from virtwarden.consoled.asking import virt_viewer_file
from virtwarden.consoled.attempts import attempt
from virtwarden.consoled.operators import Operator
from virtwarden.consoled.talk import Talk, Ticket, ticket_of
from virtwarden.errors import HostError
from virtwarden.paths import Paths

SAID = {
    "domain": "web01",
    "host": "127.0.0.1",
    "port": 5900,
    "password": "aB3%wxyz",
    "seconds": 60,
    "ca": "",
}
ANN = Operator("ann", 1001, 1001)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_the_peer_is_who_the_kernel_says(ends: tuple[socket.socket, socket.socket]) -> None:
    found = operators.peer(ends[0])
    assert (found.uid, found.name) == (os.getuid(), pwd.getpwuid(os.getuid()).pw_name)


@pytest.mark.parametrize(
    ("listed", "lets"),
    [
        ("[]", False),
        ('["ann"]', True),
        ('["bob", "ann"]', True),
        ('["anne", "an", "Ann"]', False),
        ('["@staff"]', True),
        ('["staff"]', False),
        ('["@ann"]', False),
        ('["@root", "@no-such-group"]', False),
    ],
)
def test_the_policy_names_accounts_and_groups(
    listed: str, lets: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid, 50] if name == "ann" else [gid])
    names = policy(f"[console]\noperators = {listed}\n", tmp_path).rules_for("web01").operators
    assert operators.is_among(ANN, names) is lets
    assert operators.is_among(Operator("root", 0, 0), names)


def test_who_may_see_no_console_at_all_is_known_before_a_name_is(tmp_path: Path) -> None:
    text = '[console]\noperators = ["eve"]\n[[domain]]\nmatch = "web*"\n'
    found = policy(f'{text}[domain.console]\noperators = ["ann", "@staff"]\n', tmp_path).operators
    assert found == {"eve", "ann", "@staff"}
    assert operators.is_among(ANN, found)
    assert not operators.is_among(Operator("bob", 1001, 1001), found)


@pytest.mark.parametrize("name", ["@", "", "a b", "-x", "a:b", "a,b", "/x", "@@a"])
def test_what_is_no_account_is_no_operator(name: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="operators"):
        policy(f'[console]\noperators = ["{name}"]\n', tmp_path)


def test_each_failure_makes_the_next_attempt_wait_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(attempts, "_now", lambda: clock[0])
    monkeypatch.setattr(attempts.files, "write_atomically", _write)
    paths = Paths(run=tmp_path)
    for failed in range(20):
        clock[0] += attempts.wait_after(failed)
        with pytest.raises(ZeroDivisionError), attempt(paths, 1001):
            raise ZeroDivisionError
        wait = attempts.wait_after(failed + 1)
        assert wait == (0 if failed < 2 else min(15 * 2 ** (failed - 2), 300))
        if wait:
            clock[0] += wait - 1
            with pytest.raises(HostError, match=f"{failed + 1} attempts failed; .* in 1 s"):
                attempt(paths, 1001).__enter__()
            clock[0] -= wait - 1
    with attempt(paths, 1002):
        pass
    clock[0] += 300
    with attempt(paths, 1001):
        pass
    with attempt(paths, 1001):
        pass


def _write(path: Path, content: bytes, mode: int) -> None:
    path.write_bytes(content)


def test_hanging_up_in_the_middle_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts.files, "write_atomically", _write)
    paths = Paths(run=tmp_path)
    running = attempt(paths, 1001)
    running.__enter__()
    assert (paths.console_attempts / "1001" / "failed").read_text().startswith("[1, ")


@pytest.mark.parametrize(
    "more",
    [
        {"port": "5900"},
        {"port": True},
        {"ca": None},
        {"more": 1},
        {"kind": "rdp"},
        {"subject": 7},
        {"domain": ["web01"]},
    ],
)
def test_a_ticket_of_another_form_is_none(more: dict[str, Any]) -> None:
    assert ticket_of(SAID) == Ticket(**SAID)  # type: ignore[arg-type]
    with pytest.raises(HostError, match="ticket"):
        ticket_of(SAID | more)


def test_a_ticket_is_shown_without_its_password() -> None:
    assert "aB3%wxyz" not in repr(ticket_of(SAID))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"", "hung up"),
        (b"x" * 20000, "invalid answer: too long"),
        (b"[]\n", "invalid answer: unknown format"),
        (b"\xff\n", "invalid answer: unknown format"),
        (b'{"domain": 1}\n', "invalid answer: domain is missing"),
    ],
)
def test_the_other_end_is_not_believed(
    said: bytes, told: str, ends: tuple[socket.socket, socket.socket]
) -> None:
    ends[1].sendall(said)
    ends[1].shutdown(socket.SHUT_WR)
    with pytest.raises(HostError, match=told):
        Talk(ends[0], 5).hear("domain")


def test_the_other_end_is_not_waited_for_for_ever(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    with pytest.raises(HostError, match="does not answer"):
        Talk(ends[0], 0.01).hear("domain")


def test_a_viewers_file_has_a_line_for_each_value_whatever_is_in_it() -> None:
    ticket = Ticket("a\\b\nhost=evil", "::1", 5900, "aB3%wxyz", 60, "BEGIN\nEND\n")
    lines = virt_viewer_file(ticket).splitlines()
    assert lines[0] == "[virt-viewer]"
    assert lines.count("host=evil") == 0
    assert "title=a\\\\b\\nhost=evil" in lines
    assert "ca=BEGIN\\nEND\\n" in lines


def test_a_viewer_of_spice_connects_to_the_tls_port_and_knows_the_console() -> None:
    ticket = Ticket("web01", "::1", 5900, "long", 60, "CA\n", kind="spice", subject="CN=3f0ee0bb")
    lines = virt_viewer_file(ticket).splitlines()
    assert {"type=spice", "tls-port=5900", "host-subject=CN=3f0ee0bb", "ca=CA\\n"} <= {*lines}
    assert not [line for line in lines if line.startswith("port=")]
    without_tls = virt_viewer_file(replace(ticket, ca="", subject="")).splitlines()
    assert "port=5900" in without_tls
    assert not [line for line in without_tls if line.startswith(("tls-port=", "host-subject="))]


def test_a_ca_is_trusted_where_the_one_file_that_counts_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_host = tmp_path / "etc.pem"
    monkeypatch.setattr(asking, "OF_HOST", of_host)
    own = asking.trusting_file(tmp_path)
    assert own == tmp_path / ".pki/CA/cacert.pem"
    assert not asking.is_trusted("BEGIN\nA\nEND\n", own)
    own.parent.mkdir(parents=True)
    own.write_text("BEGIN\nB\nEND\nBEGIN\r\nA\r\nEND")
    assert asking.is_trusted("BEGIN\nA\nEND\n", own)
    of_host.write_text("BEGIN\nB\nEND\n")
    assert asking.trusting_file(tmp_path) == of_host
    assert not asking.is_trusted("BEGIN\nA\nEND\n", of_host)

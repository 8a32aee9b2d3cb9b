# SPDX-License-Identifier: GPL-2.0-or-later
"""What the wrapper believes: a ticket that root alone can have written, in the VM's own process."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wrapped
from test_wrapper_argv import ticket_of

UUID = "00000000-0000-4000-8000-000000000001"
OTHER = "00000000-0000-4000-8000-000000000002"
VM = 70001


@pytest.fixture
def tickets(tmp_path: Path) -> Path:
    """A /run/virt-warden with one ticket, as the hook leaves it."""
    base = tmp_path / "virt-warden"
    for directory, mode in ((base, 0o711), (base / UUID, 0o750)):
        directory.mkdir()
        directory.chmod(mode)
    ticket = base / UUID / "ticket.json"
    ticket.write_text(json.dumps(ticket_of()))
    ticket.chmod(0o640)
    os.chown(base / UUID, 0, VM)
    os.chown(ticket, 0, VM)
    return base


def refused(tickets: Path, uuid: str = UUID) -> str:
    with pytest.raises(wrapped.refusal.Refusal) as refusal:
        wrapped.ticket.read_ticket(uuid, str(tickets))
    assert "virt-warden" in refusal.value.fix
    return str(refusal.value)


def test_what_the_hook_wrote_is_believed(tickets: Path) -> None:
    assert wrapped.ticket.read_ticket(UUID, str(tickets)) == ticket_of()


def test_without_a_ticket_nothing_starts(tickets: Path) -> None:
    (tickets / UUID / "ticket.json").unlink()
    assert "no ticket" in refused(tickets)
    assert "no ticket" in refused(tickets, OTHER)
    assert "no ticket" in refused(tickets / "nowhere")


FORGERIES: dict[str, Callable[[Path], object]] = {
    "ticket of the VM's user": lambda base: os.chown(base / UUID / "ticket.json", VM, VM),
    "directory of the VM's user": lambda base: os.chown(base / UUID, VM, VM),
    "base of the VM's user": lambda base: os.chown(base, VM, VM),
    "ticket for all to write": lambda base: (base / UUID / "ticket.json").chmod(0o646),
    "ticket for the group to write": lambda base: (base / UUID / "ticket.json").chmod(0o660),
    "directory for the group to write": lambda base: (base / UUID).chmod(0o770),
    "base for all to write": lambda base: base.chmod(0o1777),
    "ticket with a second name": lambda base: os.link(base / UUID / "ticket.json", base / "t"),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
def test_what_others_than_root_could_have_written_is_refused(
    tickets: Path, forge: Callable[[Path], object]
) -> None:
    forge(tickets)
    assert "could be forged" in refused(tickets)


@pytest.mark.parametrize("what", ["ticket.json", "."])
def test_a_symlink_is_not_followed(tickets: Path, what: str, tmp_path: Path) -> None:
    swapped = tickets / UUID / what
    moved = swapped.rename(tmp_path / "moved")
    swapped.symlink_to(moved)
    assert "cannot be read" in refused(tickets)


def test_a_base_that_is_a_symlink_is_not_followed(tickets: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tickets)
    assert "cannot be read" in refused(tmp_path / "link")


@pytest.mark.parametrize("kind", ["fifo", "socket", "directory"])
def test_only_a_file_is_a_ticket(tickets: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ticket = tickets / UUID / "ticket.json"
    ticket.unlink()
    monkeypatch.chdir(tickets / UUID)  # a socket's path has at most 108 bytes
    if kind == "fifo":
        os.mkfifo(ticket, 0o640)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("ticket.json")
        ticket.chmod(0o640)
    else:
        ticket.mkdir(0o750)
    assert "not a file" in (said := refused(tickets)) or "cannot be read" in said


def test_another_domains_ticket_is_refused(tickets: Path) -> None:
    (tickets / UUID).rename(tickets / OTHER)
    assert f"another domain's, {UUID}" in refused(tickets, OTHER)


def test_a_huge_ticket_is_refused(tickets: Path) -> None:
    with (tickets / UUID / "ticket.json").open("a") as ticket:
        ticket.write(" " * wrapped.ticket.TICKET_LIMIT)
    assert "too big" in refused(tickets)


MALFORMED: list[tuple[str, object]] = [
    ("version", 2),
    ("version", True),
    ("version", "1"),
    ("mode", "off"),
    ("mode", None),
    ("uuid", "../../etc"),
    ("name", ""),
    ("name", "a/b"),
    ("user", "a b"),
    ("uid", 0),
    ("uid", -1),
    ("uid", 70001.0),
    ("uid", "70001"),
    ("uid", True),
    ("uid", 2**32 - 1),
    ("gid", 0),
    ("groups", [0]),
    ("groups", {}),
    ("groups", [[]]),
    ("emulator", "qemu-system-x86_64"),
    ("files", "/etc/shadow"),
    ("files", ["etc/shadow"]),
    ("files", ["/a\0b"]),
    ("macs", ["52:54:00:00:00"]),
    ("macs", [None]),
    ("vnc", [{"listen": "::1"}]),
    ("vnc", [{"listen": "::1", "port": "5900"}]),
    ("vnc", [{"listen": "::1", "port": 5900, "socket": "/x"}]),
    ("vnc", [{"socket": "x"}]),
    ("vnc", ["127.0.0.1:0"]),
    ("tls_dir", ""),
    ("tls_dir", False),
    ("password", 1),
    ("passthrough", "false"),
    ("spice", None),
    ("spice", [{"listen": "::1"}]),
    ("spice", ["127.0.0.1:5900"]),
    ("display", "off"),
    ("client_certificates", None),
    ("static_passwords", 0),
    ("system_calls", {"call": 317, "filters": [{"code": "0", "log": True, "incoming": True}]}),
    ("system_calls", {"call": 317, "filters": [{"code": "zz", "log": True, "incoming": True}]}),
    ("system_calls", {"call": 317, "filters": [{"code": "00", "log": 1, "incoming": True}]}),
    ("system_calls", {"call": 0, "filters": []}),
    ("system_calls", {"filters": []}),
    ("more", 1),
    ("more", "text"),
]


@pytest.mark.parametrize(("key", "value"), MALFORMED)
def test_a_malformed_field_is_named(key: str, value: object) -> None:
    with pytest.raises(wrapped.refusal.Refusal, match=f"malformed at {key}"):
        wrapped.ticket.parse_ticket(json.dumps({**ticket_of(), key: value}), UUID)


def test_a_ticket_of_version_0_1_0_sets_no_filter() -> None:
    ticket = ticket_of()
    del ticket["system_calls"]
    assert wrapped.ticket.parse_ticket(json.dumps(ticket), UUID)["system_calls"] is None


@pytest.mark.parametrize("key", sorted(ticket_of().keys() - wrapped.ticket.NEWER.keys()))
def test_a_missing_field_is_named(key: str) -> None:
    ticket = ticket_of()
    del ticket[key]
    with pytest.raises(wrapped.refusal.Refusal, match=f"malformed at {key}"):
        wrapped.ticket.parse_ticket(json.dumps(ticket), UUID)


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"null", b"{", b"\xff", b'"x"', b"[" * 100_000, b'{"version": 1, "version": 1}'],
)
def test_what_is_no_ticket_at_all_is_refused(tickets: Path, text: bytes) -> None:
    (tickets / UUID / "ticket.json").write_bytes(text)
    assert "malformed" in refused(tickets)


# The process


def identity(**other: Any) -> list[str]:
    facts = {"uids": {VM}, "gids": {VM}, "groups": {VM, 106}, "capabilities": 0} | other
    return [str(refusal) for refusal in wrapped.process.check_identity(ticket_of(), **facts)]


def test_the_vms_own_user_passes() -> None:
    assert identity() == []
    assert identity(groups=set()) == []


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"uids": {0}}, "uid"),
        ({"uids": {VM, 0}}, "uid"),
        ({"uids": {64055}}, "uid"),
        ({"gids": {VM, 0}}, "gid"),
        ({"groups": {VM, 106, 0}}, "groups"),
        ({"groups": {42}}, "groups"),
        ({"capabilities": 1 << 40}, "capabilities"),
    ],
)
def test_anybody_else_is_refused(other: dict[str, Any], said: str) -> None:
    (refusal,) = identity(**other)
    assert said in refusal


@pytest.mark.root
def test_roots_capabilities_are_seen() -> None:
    assert wrapped.process.capabilities() != 0

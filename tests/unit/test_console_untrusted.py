# SPDX-License-Identifier: GPL-2.0-or-later
"""What an operator may send to the console service, and when a ticket is over."""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import pytest

from virtwarden.consoled import quota, tickets
from virtwarden.consoled.latest import Latest, abandoned
from virtwarden.consoled.operators import Operator
from virtwarden.consoled.talk import Talk
from virtwarden.consoled.viewers import Watch
from virtwarden.errors import HostError
from virtwarden.paths import Paths


@pytest.mark.parametrize(
    "untrusted_line",
    [
        b'{"domain": "web\\ud800"}\n',
        b'{"domain": 1}\n',
        b"[" * 8000 + b"\n",
        b'{"a":' * 3000 + b"\n",
        b"\xff\xfe\n",
    ],
)
def test_what_is_no_name_is_refused_and_is_no_bug(untrusted_line: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(untrusted_line)
        with pytest.raises(HostError, match="invalid answer"):
            Talk(ours, 5).hear("domain")


def test_a_name_with_a_zero_in_it_is_no_domain() -> None:
    hypervisor = libvirt.open("test:///default")
    try:
        assert tickets._find(hypervisor, "test\0") is None
        assert tickets._find(hypervisor, "test") is not None
    finally:
        hypervisor.close()


def test_who_sends_a_byte_now_and_then_holds_the_service_no_longer_than_the_silent() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        talk = Talk(ours, 0)
        theirs.sendall(b"{")
        with pytest.raises(HostError, match="too slow"):
            talk.hear("domain")


def test_who_was_too_slow_is_told_so() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        talk = Talk(ours, 0.01)
        with pytest.raises(HostError, match="does not answer"):
            talk.hear("domain")
        talk.say(refused="too slow")
        assert b"too slow" in theirs.recv(4096)


def test_nobody_takes_all_places_of_the_service_and_root_always_has_one(tmp_path: Path) -> None:
    paths = replace(Paths(), run=tmp_path)
    olga, paul, root = (Operator(f"u{uid}", uid, uid) for uid in (1000, 1001, 0))
    with ExitStack() as held:
        for _ in range(quota.REQUESTS):
            held.enter_context(quota.request(paths, olga))
        with pytest.raises(HostError, match="requests for consoles already"):
            held.enter_context(quota.request(paths, olga))
        held.enter_context(quota.request(paths, paul))
        for _ in range(quota.REQUESTS + 1):
            held.enter_context(quota.request(paths, root))
    with quota.request(paths, olga):
        """A place is free again."""


def test_all_operators_together_leave_places_to_root(tmp_path: Path) -> None:
    paths = replace(Paths(), run=tmp_path)
    operators = [Operator(f"u{uid}", uid, uid) for uid in range(1000, 1020)]
    with ExitStack() as held:
        for number in range(quota.REQUESTS_OF_ALL):
            held.enter_context(quota.request(paths, operators[number // quota.REQUESTS]))
        with pytest.raises(HostError, match="all operators together"):
            held.enter_context(quota.request(paths, operators[-1]))
        held.enter_context(quota.request(paths, Operator("root", 0, 0)))
    assert int(_of_the_socket("MaxConnections")) > quota.REQUESTS_OF_ALL


def test_one_user_opens_fewer_connections_than_systemd_accepts() -> None:
    """systemd 257 counts them by user, before any process is started for them."""
    of_one = int(_of_the_socket("MaxConnectionsPerSource"))
    assert quota.REQUESTS < of_one < int(_of_the_socket("MaxConnections")) - quota.REQUESTS_OF_ALL


def _of_the_socket(key: str) -> str:
    unit = Path(__file__).parents[2] / "packaging/systemd/virt-warden-console.socket"
    (value,) = [line for line in unit.read_text().splitlines() if line.startswith(f"{key}=")]
    return value.removeprefix(f"{key}=")


def test_a_ticket_is_abandoned_when_its_process_is_gone_and_not_before(tmp_path: Path) -> None:
    paths = replace(Paths(), run=tmp_path)
    uuid = "3f0ee0bb-0000-4000-8000-000000000001"
    first = Latest.new(paths, uuid, "olga", "vnc")
    assert [*abandoned(paths)] == []
    os.close(first.handle)
    (found,) = abandoned(paths)
    assert (found.domain, found.operator, found.login) == (uuid, "olga", "vnc")
    second = Latest.new(paths, uuid, "paul", "sasl")
    assert second.holds()
    assert not first.holds()
    assert [*abandoned(paths)] == []
    first.end()
    assert second.holds()
    second.end()
    os.close(second.handle)
    assert [*paths.console_tickets.iterdir()] == []


def test_the_consoles_socket_never_stays_shut() -> None:
    """systemd's own limit would shut it for good: systemd.socket(5), TriggerLimitIntervalSec."""
    unit = Path(__file__).parents[2] / "packaging/systemd/virt-warden-console.socket"
    assert "TriggerLimitIntervalSec=0" in unit.read_text().splitlines()


def test_systemd_has_the_ticket_of_a_killed_service_revoked() -> None:
    unit = Path(__file__).parents[2] / "packaging/systemd/virt-warden-console@.service"
    (line,) = [line for line in unit.read_text().splitlines() if line.startswith("ExecStopPost=")]
    assert "exec /usr/sbin/virt-warden console --revoke" in line


class _Events:
    def domainEventRegisterAny(self, *_: object) -> int:  # noqa: N802 - libvirt's name
        return 1


class _Domain:
    def name(self) -> str:
        return "web01"

    def isActive(self) -> bool:  # noqa: N802 - libvirt's name
        return False

    def UUIDString(self) -> str:  # noqa: N802 - libvirt's name
        return "3f0ee0bb-0000-4000-8000-000000000001"


class _Login:
    def __init__(self, user: str = "", quiet_seconds: int = 0) -> None:
        self.user, self.quiet_seconds = user, quiet_seconds
        self.revoked = 0

    def keep(self, seconds: int) -> None:
        """QEMU's part."""

    def revoke(self) -> None:
        self.revoked += 1


class _Latest:
    def __init__(self, *, replaced: bool) -> None:
        self._replaced = replaced
        self.is_over = False

    def holds(self) -> bool:
        return not self._replaced

    def end(self) -> None:
        self.is_over = True


@pytest.mark.parametrize("replaced", [False, True])
def test_an_unused_ticket_is_revoked_by_its_end_unless_a_newer_one_took_its_place(
    replaced: bool,
) -> None:
    libvirt.virEventRegisterDefaultImpl()
    login, events, domain = _Login(), _Events(), _Domain()
    latest: Any = _Latest(replaced=replaced)
    anybody = Operator("olga", 1000, 1000)
    watch = Watch(events, domain, anybody, login, latest)  # type: ignore[arg-type]
    watch.until_used(0)
    assert login.revoked == (0 if replaced else 1)


def test_a_ticket_of_a_domain_that_stopped_is_over_like_any_other() -> None:
    class Gone(_Login):
        def revoke(self) -> None:
            raise HostError("QEMU cannot be told")

    libvirt.virEventRegisterDefaultImpl()
    latest: Any = _Latest(replaced=False)
    anybody = Operator("olga", 1000, 1000)
    watch = Watch(_Events(), _Domain(), anybody, Gone(), latest)  # type: ignore[arg-type]
    watch.until_used(0)
    assert latest.is_over


@pytest.mark.parametrize(
    ("login", "revoked"), [(_Login(), 0), (_Login(quiet_seconds=2), 0), (_Login(user="olga"), 1)]
)
def test_a_viewers_ticket_does_not_take_a_newer_one_with_it(login: _Login, revoked: int) -> None:
    """The newer one replaced the display's own password; with SASL each ticket is its own."""
    libvirt.virEventRegisterDefaultImpl()
    latest: Any = _Latest(replaced=False)
    watch = Watch(_Events(), _Domain(), Operator("olga", 1000, 1000), login, latest)  # type: ignore[arg-type]
    came, where = libvirt.VIR_DOMAIN_EVENT_GRAPHICS_INITIALIZE, {"node": "::1", "service": "1"}
    watch._hear(None, None, came, {}, where, "", [("saslUsername", "olga")])  # type: ignore[arg-type]
    latest._replaced = True
    began = time.monotonic()
    watch.until_used(60)
    assert login.revoked == revoked
    assert time.monotonic() - began < 2

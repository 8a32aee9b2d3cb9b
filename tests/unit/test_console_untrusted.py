# SPDX-License-Identifier: GPL-2.0-or-later
"""What an operator may send to the console service, and when a ticket is over."""

from __future__ import annotations

import socket
from typing import Any

import libvirt
import pytest

from virtwarden.consoled import tickets
from virtwarden.consoled.operators import Operator
from virtwarden.consoled.talk import Talk
from virtwarden.consoled.viewers import Watch
from virtwarden.errors import HostError


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


class _Events:
    def domainEventRegisterAny(self, *_: object) -> int:  # noqa: N802 - libvirt's name
        return 1


class _Domain:
    def name(self) -> str:
        return "web01"

    def UUIDString(self) -> str:  # noqa: N802 - libvirt's name
        return "3f0ee0bb-0000-4000-8000-000000000001"


class _Login:
    user = ""

    def __init__(self) -> None:
        self.revoked = 0

    def revoke(self) -> None:
        self.revoked += 1


class _Latest:
    def __init__(self, *, replaced: bool) -> None:
        self._replaced = replaced

    def holds(self) -> bool:
        return not self._replaced

    def end(self) -> None:
        """Nothing is on disk here."""


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

# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain as it would be at its next start, which first undoes what a killed one left."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import xmls
from fake_host import UID, account_of, policy

from virtwarden.changes import CreateUser, journal
from virtwarden.errors import HostError
from virtwarden.guards import identity
from virtwarden.guards.base import Case
from virtwarden.libvirtd.cases import next_case
from virtwarden.paths import Paths
from virtwarden.system import users
from virtwarden.system.users import Account

USER = "vmw-web01"


@dataclass
class Users:
    """Those that the host has, and their groups."""

    accounts: list[Account] = field(default_factory=list)
    groups: dict[str, int] = field(default_factory=dict)

    def account(self, name: str) -> Account | None:
        return next((each for each in self.accounts if each.name == name), None)

    def account_of(self, domain: str) -> Account | None:
        return next((each for each in self.accounts if each.domain == domain), None)


@pytest.fixture
def present(monkeypatch: pytest.MonkeyPatch) -> Users:
    """Of the domain's user, its group alone."""
    present = Users(groups={USER: UID})
    monkeypatch.setattr(users, "account", present.account)
    monkeypatch.setattr(users, "account_of", present.account_of)
    monkeypatch.setattr(users, "group_id", present.groups.get)
    return present


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(state=tmp_path / "state", run=tmp_path / "run")


def begin(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that made the group, and then no user."""

    def fail(*_: Any) -> None:
        raise HostError("useradd was killed")

    monkeypatch.setattr(CreateUser, "capture", lambda self, paths: {"uid": UID})
    monkeypatch.setattr(CreateUser, "apply", fail)
    change = CreateUser(USER, xmls.UUID, (70000, 99999), ("kvm",))
    with journal.locked(paths, xmls.UUID), pytest.raises(HostError):
        journal.perform(paths, xmls.UUID, [change])


def case(paths: Paths, tmp_path: Path) -> Case:
    domain: Any = SimpleNamespace(XMLDesc=lambda flags: xmls.domain())
    return next_case(paths, policy("", tmp_path), domain)


def test_a_user_that_was_only_begun_is_made_anew(
    paths: Paths, present: Users, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begin(paths, monkeypatch)
    found = case(paths, tmp_path)
    assert identity.review(found) == []
    assert isinstance(identity.plan(found)[0], CreateUser)


def test_a_group_that_no_start_made_stays_in_the_way(
    paths: Paths, present: Users, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (refusal,) = identity.review(case(paths, tmp_path))
    begin(paths, monkeypatch)
    present.groups[USER] = 1000
    (after,) = identity.review(case(paths, tmp_path))
    assert refusal.what == after.what == f"group {USER} is not this domain's own"


@pytest.mark.parametrize(
    "there", [Account(USER, UID, UID), account_of("vmw-renamed", xmls.UUID, UID + 1)]
)
def test_what_a_start_leaves_alone_stays_in_the_way(
    paths: Paths,
    present: Users,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    there: Account,
) -> None:
    begin(paths, monkeypatch)
    present.accounts.append(there)
    assert len(identity.review(case(paths, tmp_path))) == 1


def test_a_journal_that_cannot_be_read_is_no_reason_to_promise_a_start(
    paths: Paths, present: Users, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begin(paths, monkeypatch)
    (file,) = paths.domain_state(xmls.UUID).iterdir()
    file.write_text("broken\n")
    assert len(identity.review(case(paths, tmp_path))) == 1

# SPDX-License-Identifier: GPL-2.0-or-later
"""No uid is given again, whatever became of the ledger; where that is in doubt, none is given."""

from __future__ import annotations

import os
import shutil
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.host.command import run
from tests.host.libvirt import Libvirt
from tests.host.syslog import Syslog
from virtwarden.changes import CreateUser
from virtwarden.changes.accounts import ledger
from virtwarden.cli import recover
from virtwarden.errors import HostError
from virtwarden.package.installation import configure
from virtwarden.paths import Paths
from virtwarden.system import users

BASE = Path("/var/lib/test-ledger")
PATHS = Paths(
    policy=BASE / "policy.toml",
    policy_dir=BASE / "policy.d",
    state=BASE / "state",
    ledger_copy=BASE / "etc" / "uids",
    run=BASE / "run",
    hooks=BASE / "hooks",
    apparmor=BASE / "apparmor",
    daemon_pids=BASE / "pids",
)
LEDGER, COPY = PATHS.ledger, PATHS.ledger_copy
RANGE = (70000, 99999)
PREFIX = "vmw-l-"


def given(name: str) -> int:
    """A domain's user is made, as at its first start; its uid."""
    user = CreateUser(PREFIX + name, str(uuid4()), RANGE, ())
    before = user.capture(PATHS)
    user.apply(PATHS, before)
    return int(before["uid"])


def removed(name: str) -> None:
    """The domain is unenrolled."""
    account = users.account(PREFIX + name)
    assert account is not None
    users.remove(account.name, account.uid)


@pytest.fixture
def former(libvirt: Libvirt, monkeypatch: pytest.MonkeyPatch) -> Iterator[set[int]]:
    """The uids of three domains, of which two are gone, on a host without any other domain."""
    real = users.of_domains
    monkeypatch.setattr(
        users, "of_domains", lambda: [one for one in real() if one.name.startswith(PREFIX)]
    )
    forget()
    BASE.mkdir()
    PATHS.policy.write_text("managed = []\n")
    uids = {given("one"), given("two")}
    shutil.copy(LEDGER, BASE / "older")
    uids.add(given("three"))
    removed("two")
    removed("three")
    yield uids
    forget()


def forget() -> None:
    for account in users.of_domains():
        if account.name.startswith(PREFIX):
            users.remove(account.name, account.uid)
    shutil.rmtree(BASE, ignore_errors=True)


def rebuilt() -> None:
    assert recover.run(Namespace(ledger=True, domains=[]), PATHS) == 0


def deleted(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 20)


def scribbled_on(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"7000", b"8000"))


def older(path: Path) -> None:
    shutil.copy(BASE / "older", path)


DAMAGE = [deleted, emptied, zeroed, cut_off, scribbled_on]


@pytest.mark.parametrize("damage", [*DAMAGE, older])
def test_a_ledger_that_lost_entries_is_restored_and_gives_no_uid_again(
    former: set[int], damage: Callable[[Path], None], syslog: Syslog
) -> None:
    whole = LEDGER.read_bytes()
    damage(LEDGER)
    assert given("new") > max(former)
    assert LEDGER.read_bytes().startswith(whole)
    assert f"{LEDGER} had lost entries" in syslog.wait_for("event=ledger-restored")


def test_all_of_virt_wardens_state_may_be_deleted_and_no_uid_is_given_again(
    former: set[int],
) -> None:
    shutil.rmtree(PATHS.state)
    assert given("new") > max(former)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_copy_that_is_damaged_is_made_again_from_the_ledger(
    former: set[int], damage: Callable[[Path], None]
) -> None:
    damage(COPY)
    given("new")
    removed("new")
    LEDGER.unlink()
    assert given("new") > max(former) + 1


def test_what_was_added_to_a_ledger_without_its_copy_counts(former: set[int]) -> None:
    """As after a crash between the two, or by a former version."""
    with LEDGER.open("a") as file:
        file.write("70500 vmw-other 0\n705")
    assert given("new") == 70501
    emptied(LEDGER)
    removed("new")
    assert given("new") == 70502


@pytest.mark.parametrize("damage", DAMAGE[:3])
def test_where_both_are_damaged_no_uid_is_given_until_they_are_rebuilt(
    former: set[int],
    damage: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(LEDGER)
    damage(COPY)
    with pytest.raises(HostError, match="virt-warden recover --ledger"):
        given("new")
    assert users.account(f"{PREFIX}new") is None
    left = BASE / "left-behind"
    left.touch()
    os.chown(left, max(former), 0)
    rebuilt()
    assert f", {max(former)}" in capsys.readouterr().out
    assert given("new") > max(former)


def test_where_both_are_put_back_older_than_a_user_no_uid_is_given(former: set[int]) -> None:
    kept = {path: path.read_bytes() for path in (LEDGER, COPY)}
    newest = given("new")
    for path, content in kept.items():
        path.write_bytes(content)
    with pytest.raises(HostError, match=f"has uid {newest} of {PREFIX}new"):
        given("two")
    rebuilt()
    assert given("two") > newest


def test_a_new_host_and_one_that_comes_from_a_version_without_copy_are_in_no_doubt(
    former: set[int],
) -> None:
    COPY.unlink()
    ledger(PATHS).check()
    emptied(LEDGER)
    assert given("new") > max(former)
    removed("new")
    removed("one")
    shutil.rmtree(PATHS.state)
    COPY.unlink()
    ledger(PATHS).check()
    assert not LEDGER.exists()
    assert not COPY.exists()
    assert given("one") == RANGE[0]


def test_an_installation_makes_the_copy_and_tells_of_doubt(former: set[int]) -> None:
    COPY.unlink()
    warned: list[str] = []
    configure(PATHS, lambda _: None, warned.append)
    assert COPY.exists()
    zeroed(LEDGER)
    zeroed(COPY)
    configure(PATHS, lambda _: None, warned.append)
    assert "virt-warden recover --ledger" in warned[-1]


def test_only_root_reads_the_ledger_and_its_copy(former: set[int]) -> None:
    for path in (LEDGER, COPY):
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (0, 0o600)


def test_a_full_range_still_is_refused_with_the_edit_that_helps(former: set[int]) -> None:
    with pytest.raises(HostError, match="uid_range"):
        ledger(PATHS).take((70000, max(former)), "vmw-more", "0")


def test_a_person_who_writes_a_vm_into_their_comment_is_no_vms_user(former: set[int]) -> None:
    """`chfn --full-name`, where CHFN_RESTRICT or a directory service allows it."""
    person, vm = f"{PREFIX}person", str(uuid4())
    comment = ("--comment", f"virt-warden domain {vm}")
    run("useradd", "--no-create-home", "--home-dir", "/home/person", *comment, person)
    try:
        account = users.account(person)
        assert account is not None
        assert (account.domain, users.account_of(vm)) == ("", None)
        # Else the ledger would seem to have lost that user's uid, and no VM would get one.
        assert given("four") not in former
    finally:
        run("userdel", person)

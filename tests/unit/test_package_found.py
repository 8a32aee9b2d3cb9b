# SPDX-License-Identifier: GPL-2.0-or-later
"""The first installation reviews the domains that are there: once, and where it can."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import xmls

from virtwarden import policy
from virtwarden.errors import DomainError, Refusal
from virtwarden.nextstart import NextStart
from virtwarden.package import daemon, found
from virtwarden.paths import Paths
from virtwarden.policy import Rules

REPOSITORY = Path(__file__).parents[2]
pytestmark = pytest.mark.root


class Host:
    """A host with libvirt's files; `said` and `warned` are the lines for the admin."""

    def __init__(self, directory: Path) -> None:
        for name in ("etc", "etc/policy.d", "qemu", "state"):
            (directory / name).mkdir(mode=0o755)
        self.paths = Paths(
            policy=directory / "etc/policy.toml",
            policy_dir=directory / "etc/policy.d",
            schema=REPOSITORY / "policy/schema.json",
            run=directory / "run",
            state=directory / "state",
            libvirt_config=directory / "qemu",
            daemon_pids=directory,
        )
        self.said: list[str] = []
        self.warned: list[str] = []
        self.set_policy('managed = ["*", "!theirs"]\n')

    def set_policy(self, text: str) -> None:
        self.paths.policy.write_text(text)
        self.paths.policy.chmod(0o600)

    def has(self, *names: str) -> None:
        for name in names:
            (self.paths.libvirt_config / f"{name}.xml").write_text(xmls.domain(name=name))

    def review(self, how: Callable[..., None] = found.review_if_due) -> None:
        how(self.paths, self.said.append, self.warned.append)

    def listed(self) -> list[str]:
        if not self.paths.found.exists():
            return []
        return [entry["match"] for entry in tomllib.loads(self.paths.found.read_text())["domain"]]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]) -> Host:
    """It has something against each domain whose name begins with `bad`."""
    monkeypatch.setattr(found, "load", partial(policy.load, owner=os.getuid()))
    monkeypatch.setattr(daemon, "_BOOTED", tmp_path / "booted")

    def foresee(paths: Paths, rules: Rules, xml: bytes) -> NextStart:
        if b"<name>bad" not in xml:
            return NextStart((), may_lack_access=False)
        return NextStart((Refusal("no", fix="mend"), Refusal("nor that")), may_lack_access=True)

    monkeypatch.setattr(found, "foresee", foresee)
    monkeypatch.setattr(found, "try_owners", lambda rules, xml: [])
    made = Host(tmp_path)
    found.make_due(made.paths)
    return made


def test_those_that_would_be_refused_are_listed_with_each_reason(
    host: Host, logged: list[str]
) -> None:
    host.has("bad1", "good", "bad2")
    host.review()
    assert host.listed() == ["bad1", "bad2"]
    text = host.paths.found.read_text()
    assert "#: - no\n#:   fix: mend\n#: - nor that\n" in text
    assert host.said[0] == "2 of 3 domains would be refused in enforcing mode: bad1 bad2"
    assert "virt-warden graduate NAME" in host.said[-1]
    assert host.warned == []
    assert sum("event=found" in line for line in logged) == 2
    assert (host.paths.found.stat().st_mode & 0o777) == 0o644


def test_it_is_done_once(host: Host) -> None:
    host.review()
    host.has("bad1")
    host.review()
    assert host.listed() == []
    assert not host.paths.review_due.exists()


def test_a_domain_that_is_not_managed_or_not_enforcing_is_not_listed(host: Host) -> None:
    host.has("bad1", "bad2", "bad3", "theirs")
    entry = '[[domain]]\nmatch = "{}"\nmode = "{}"\n'
    host.set_policy(
        'managed = ["bad*", "!bad3"]\n'
        + entry.format("bad1", "permissive")
        + entry.format("bad2", "disabled")
    )
    host.review()
    assert host.listed() == []
    assert host.said == []


def test_one_that_the_admins_policy_has_enforcing_by_name_is_told(host: Host) -> None:
    host.has("bad1")
    host.set_policy('managed = ["*"]\n[[domain]]\nmatch = "bad*"\nmode = "enforcing"\n')
    host.review()
    (line,) = host.warned
    assert f"bad1 stays enforcing, as {host.paths.policy}:4 says" in line


def test_xml_that_cannot_be_read_makes_its_domain_permissive_by_the_files_name(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NextStart:
        raise DomainError("it has over 10000 elements")

    monkeypatch.setattr(found, "foresee", fail)
    (host.paths.libvirt_config / "a[1].xml").write_text("<domain>")
    host.review()
    assert host.listed() == ["a[[]1]"]


def test_a_domain_at_which_the_review_itself_fails_becomes_permissive_and_the_others_are_reviewed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = found.foresee

    def fail(paths: Paths, rules: Rules, xml: bytes) -> NextStart:
        if b"<name>odd" in xml:
            raise KeyError("a bug")
        return judge(paths, rules, xml)

    monkeypatch.setattr(found, "foresee", fail)
    host.has("bad1", "good", "odd")
    host.review()
    assert host.listed() == ["bad1", "odd"]
    assert "it cannot be reviewed: KeyError('a bug')" in host.paths.found.read_text()


def test_a_review_that_fails_as_a_whole_keeps_nobody_from_installing(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(found, "_write_down", fail)
    host.review()
    assert "not reviewed yet: KeyError('a bug')" in host.warned[0]
    assert host.paths.review_due.exists()


def test_a_broken_policy_leaves_it_due(host: Host) -> None:
    host.has("bad1")
    host.set_policy("mode = 5\n")
    host.review()
    assert host.paths.review_due.exists()
    assert "not reviewed yet" in host.warned[0]
    host.set_policy('managed = ["*"]\n')
    host.review()
    assert host.listed() == ["bad1"]


def test_what_an_earlier_installation_found_stays_and_is_added_to(host: Host) -> None:
    host.has("bad1")
    host.review()
    host.paths.found.write_text(host.paths.found.read_text() + "# mine\n")
    host.has("bad2")
    found.make_due(host.paths)
    host.review()
    assert host.listed() == ["bad1", "bad2"]
    assert "# mine\n" in host.paths.found.read_text()


def test_a_file_that_was_edited_so_that_nothing_can_be_added_stays_and_that_is_told(
    host: Host,
) -> None:
    text = 'domain = [{match = "web01", mode = "permissive"}]\n'
    host.paths.found.write_text(text)
    host.paths.found.chmod(0o600)
    host.has("bad1")
    host.review()
    assert host.paths.found.read_text() == text
    assert "edited by hand" in host.warned[0]
    assert host.paths.review_due.exists()


def test_where_the_system_is_not_up_it_stays_due_and_that_is_told(host: Host) -> None:
    host.has("bad1")
    host.review(found.review_on_this_host)
    assert host.listed() == []
    assert "virt-warden.service starts for the first time" in host.said[0]
    assert host.paths.review_due.exists()


def test_on_a_host_that_is_up_libvirt_need_not_run(host: Host, tmp_path: Path) -> None:
    (tmp_path / "booted").mkdir()
    host.has("bad1")
    host.review(found.review_on_this_host)
    assert host.listed() == ["bad1"]


def test_a_host_without_domains_is_told_nothing(host: Host, tmp_path: Path) -> None:
    host.review(found.review_on_this_host)
    (tmp_path / "booted").mkdir()
    host.review(found.review_on_this_host)
    assert (host.said, host.warned, host.listed()) == ([], [], [])
    assert not host.paths.review_due.exists()

# SPDX-License-Identifier: GPL-2.0-or-later
"""What stays for VMs that run when virt-warden is removed stays as long as it must, no longer."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from xmls import OTHER, UUID, domain

from virtwarden.changes import WriteFile, journal
from virtwarden.package import farewell, hookfile, offline
from virtwarden.paths import Paths
from virtwarden.system import users

REPOSITORY = Path(__file__).parents[2]
NOTES = (
    "<metadata><warden:enrolment metadata='made'>"
    "<warden:emulator>/usr/bin/qemu-system-x86_64</warden:emulator>"
    "</warden:enrolment></metadata>"
)
ENROLLED = domain(extra=NOTES)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A host on which virt-warden is installed."""
    paths = Paths(
        run=tmp_path / "run",
        state=tmp_path / "state",
        share=tmp_path / "share",
        hooks=tmp_path / "hooks",
        wrapper_dir=tmp_path / "wrappers",
        libvirt_state=tmp_path / "libvirt",
        libvirt_config=tmp_path / "config",
        libvirt_run=tmp_path / "run-libvirt",
    )
    (paths.share / "hooks").mkdir(parents=True)
    shutil.copytree(
        REPOSITORY / "virtwarden",
        paths.share / "virtwarden",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    shutil.copy(REPOSITORY / "hooks" / "farewell.sh", paths.share / "hooks" / "farewell")
    shutil.copy(REPOSITORY / "hooks" / "farewell.py", paths.share)
    shutil.copy(REPOSITORY / "packaging" / "purge.sh", paths.share)
    for directory in (paths.run, paths.wrapper_dir, paths.libvirt_config):
        directory.mkdir()
    return paths


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The domains whose processes live."""
    domains: set[str] = set()
    monkeypatch.setattr(farewell, "runs", lambda uuid: uuid in domains)
    return domains


def guard(paths: Paths, uuid: str) -> Path:
    """Do something for a domain that must be undone when it stops."""
    path = paths.run / uuid
    with journal.locked(paths, uuid):
        journal.perform(paths, uuid, [WriteFile(str(path), "ticket", user="")])
    return path


def call(paths: Paths, op: str, uuid: str = UUID) -> bytes:
    stdout = io.BytesIO()
    arguments = ["web01", op, "begin", "-"]
    assert farewell.main(arguments, io.BytesIO(domain(uuid=uuid).encode()), stdout, paths) == 0
    return stdout.getvalue()


def test_it_is_needed_while_a_domain_has_something_to_undo(paths: Paths) -> None:
    assert farewell.needed(paths) == []
    guard(paths, UUID)
    assert [UUID in reason for reason in farewell.needed(paths)] == [True]


@pytest.mark.parametrize(
    "kept", ["save/web01.save", "snapshot/web01/first.xml", "checkpoint/web01/first.xml"]
)
def test_it_is_needed_while_something_that_libvirt_kept_names_the_wrapper(
    paths: Paths, kept: str
) -> None:
    path = paths.libvirt_state / kept
    path.parent.mkdir(parents=True)
    path.write_text(domain())
    assert farewell.needed(paths) == []
    path.write_text(domain(emulator=f"{paths.wrapper_dir}/qemu-system-x86_64"))
    assert farewell.needed(paths) == [f"{path} names virt-warden's wrapper"]


def test_it_is_needed_while_a_domain_that_is_not_guarded_runs_by_the_wrapper(paths: Paths) -> None:
    """Such as one that the policy leaves alone: libvirt must find its emulator."""
    status = paths.libvirt_run / "web01.xml"
    status.parent.mkdir()
    emulator = f"{paths.wrapper_dir}/qemu-system-x86_64"
    status.write_text(f"<domstatus>{domain(labels='', emulator=emulator)}</domstatus>")
    assert farewell.needed(paths) == [f"{status} names virt-warden's wrapper"]
    farewell.leave(paths)
    call(paths, "release", OTHER)
    assert paths.farewell.exists()
    status.unlink()
    call(paths, "release")
    assert not paths.farewell.exists()


def test_the_stop_of_a_domain_undoes_what_was_done_for_it_and_no_more(
    paths: Paths, running: set[str]
) -> None:
    mine, others = guard(paths, UUID), guard(paths, OTHER)
    running |= {UUID, OTHER}
    farewell.leave(paths)
    for op in ("start", "started", "stopped"):
        call(paths, op)
        running.discard(UUID) if op == "stopped" else None
    call(paths, "release")
    assert not mine.exists()
    assert others.exists()
    assert hookfile.placed(paths) is not None


def test_after_the_last_of_them_nothing_is_left(paths: Paths, running: set[str]) -> None:
    guard(paths, UUID)
    running.add(UUID)
    farewell.leave(paths)
    (paths.wrapper_dir / "qemu-system-x86_64").symlink_to("/usr/bin/qemu-system-x86_64")
    call(paths, "release")
    assert not paths.farewell.exists()
    assert not paths.wrapper_dir.exists()
    assert [*paths.hooks.iterdir()] == []


def test_after_a_reboot_the_next_start_of_any_domain_undoes_what_is_left(
    paths: Paths, running: set[str]
) -> None:
    left = guard(paths, UUID)
    farewell.leave(paths)
    call(paths, "prepare", OTHER)
    assert not left.exists()


def test_an_undo_that_fails_keeps_no_domain_from_stopping_and_is_tried_again(
    paths: Paths, running: set[str], monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    left = guard(paths, UUID)
    farewell.leave(paths)

    def fail(*_: object) -> str:
        raise OSError("no")

    with monkeypatch.context() as patch:
        patch.setattr(WriteFile, "undo", fail)
        call(paths, "release")
    assert any("event=failed" in line for line in logged)
    assert paths.farewell.exists()
    call(paths, "release")
    assert not left.exists()
    assert not paths.farewell.exists()


def test_a_saved_domain_is_restored_as_before_it_was_enrolled(paths: Paths) -> None:
    plain = farewell.plain(ENROLLED.encode(), paths).decode()
    assert "/usr/bin/qemu-system-x86_64" in plain
    assert "vmw-web01" not in plain
    assert "warden:enrolment" not in plain
    assert farewell.plain(domain(labels="", emulator="/usr/bin/kvm").encode(), paths) == b""


@pytest.mark.process
def test_it_does_without_what_apt_may_take_away(paths: Paths) -> None:
    farewell.leave(paths)
    script = """
import sys
for name in ("lxml", "sh", "posix1e", "cryptography", "jsonschema", "libvirt", "systemd", "augeas"):
    sys.modules[name] = None
sys.path.insert(0, sys.argv[1])
from virtwarden.package import farewell
"""
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-B", "-c", script, str(paths.farewell)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    copied = {path.name.partition(".")[0] for path in paths.farewell.iterdir()}
    assert {"sh", "posix1e", "lxml", "libxslt", "libexslt", "virtwarden"} <= copied


def test_installed_again_nothing_of_it_is_left(paths: Paths) -> None:
    farewell.leave(paths)
    (paths.wrapper_dir / "qemu-system-x86_64").touch()
    (paths.wrapper_dir / "qemu-system-arm").symlink_to("/usr/bin/qemu-system-arm")
    farewell.withdraw(paths)
    assert not paths.farewell.exists()
    assert [path.name for path in paths.wrapper_dir.iterdir()] == ["qemu-system-x86_64"]


def test_a_domain_runs_while_a_process_of_its_own_user_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    account = users.Account("vmw-web01", os.getuid(), os.getgid(), UUID)
    monkeypatch.setattr(users, "account_of", lambda uuid: account if uuid == UUID else None)
    assert farewell.runs(UUID)
    assert not farewell.runs(OTHER)


class TestOffline:
    def test_each_file_of_libvirts_is_as_before_and_others_are_not_touched(
        self, paths: Paths
    ) -> None:
        mine, other = paths.libvirt_config / "web01.xml", paths.libvirt_config / "db01.xml"
        mine.write_text("<!-- WARNING -->\n" + ENROLLED)
        plain = domain(labels="", emulator="/usr/bin/kvm")
        other.write_text(plain)
        before = other.stat()
        snapshot = paths.libvirt_state / "snapshot" / "web01" / "first.xml"
        snapshot.parent.mkdir(parents=True)
        inactive = ENROLLED.replace("<domain ", "<inactiveDomain ").replace(
            "</domain>", "</inactiveDomain>"
        )
        snapshot.write_text(f"<domainsnapshot>{ENROLLED}{inactive}</domainsnapshot>")
        assert offline.unenrol_files(paths) == ([str(mine), str(snapshot)], [])
        assert mine.read_text().startswith("<!-- WARNING -->")
        for path in (mine, snapshot):
            assert "/usr/lib/virt-warden" not in path.read_text()
            assert "vmw-web01" not in path.read_text()
            assert path.stat().st_mode & 0o777 == 0o600
        assert snapshot.read_text().count("<emulator>/usr/bin/qemu-system-x86_64") == 2
        assert other.stat() == before

    def test_a_file_that_cannot_be_read_is_told_and_keeps_none_from_it(self, paths: Paths) -> None:
        (paths.libvirt_config / "a.xml").write_text("<domain")
        mine = paths.libvirt_config / "web01.xml"
        mine.write_text(ENROLLED)
        written, (failure,) = offline.unenrol_files(paths)
        assert written == [str(mine)]
        assert "a.xml" in failure

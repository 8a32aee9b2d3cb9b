# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of a file that a VM's user owned, and of a file system that does as it likes."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from virtwarden.changes.access import GrantAccess, SetAccess
from virtwarden.changes.shared import LockShared, TakeBack
from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.system import acl

_USER, _UID = "nobody", 65534


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    file = tmp_path / "disk.raw"
    file.write_bytes(b"disk")
    file.chmod(0o640)
    return file


def _given(disk: Path) -> SetAccess:
    found = disk.stat()
    return SetAccess(str(disk), found.st_dev, found.st_ino, _USER, 0o600)


def _setfacl(disk: Path, entry: str, *, as_uid: int = 0) -> None:
    subprocess.run(
        ["/usr/bin/setfacl", "--modify", entry, str(disk)], check=True, user=as_uid, group=as_uid
    )


def _acl(disk: Path) -> str:
    handle = os.open(disk, os.O_PATH)
    try:
        return acl.text(handle)
    finally:
        os.close(handle)


def test_an_entry_that_the_vms_user_adds_to_a_former_acl_does_not_outlive_the_stop(
    disk: Path,
) -> None:
    for directory in [*disk.parents][:-2]:
        directory.chmod(0o755)
    _setfacl(disk, "u:1234:r")
    former, mode = _acl(disk), disk.stat().st_mode
    change = _given(disk)
    before = change.capture(Paths())
    change.apply(Paths(), before)
    _setfacl(disk, "u:70001:rw", as_uid=_UID)

    report = change.undo(Paths(), before)

    assert _acl(disk) == former
    assert disk.stat().st_mode == mode
    assert "its former ACL is restored" in report


def test_a_former_acl_is_the_same_after_an_honest_run(disk: Path) -> None:
    _setfacl(disk, "u:1234:rw,g:77:r")
    former, mode = _acl(disk), disk.stat().st_mode
    change = _given(disk)
    before = change.capture(Paths())
    change.apply(Paths(), before)

    assert change.undo(Paths(), before) == ""
    assert (_acl(disk), disk.stat().st_mode) == (former, mode)
    assert change.undo(Paths(), before) == ""


def test_a_record_of_a_former_version_is_still_undone(disk: Path) -> None:
    change = _given(disk)
    before = {key: value for key, value in change.capture(Paths()).items() if key != "acl_text"}
    change.apply(Paths(), before)

    assert change.undo(Paths(), before) == ""
    assert stat.S_IMODE(disk.stat().st_mode) == 0o640


def test_a_file_system_that_only_pretends_to_give_a_disk_away_is_refused_and_nothing_is_changed(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As vfat does with the mount option `quiet`, and CIFS with `uid=`."""
    disk.chmod(0o666)
    change = _given(disk)
    before = change.capture(Paths())
    monkeypatch.setattr(os, "chown", lambda *_args, **_more: None)

    with pytest.raises(HostError, match=r"still belongs to uid 0 .*findmnt -T"):
        change.apply(Paths(), before)

    assert stat.S_IMODE(disk.stat().st_mode) == 0o666


def test_a_disk_that_cannot_be_given_back_is_reported_and_blocks_nothing(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = _given(disk)
    before = change.capture(Paths())
    change.apply(Paths(), before)

    def refused(*_args: object, **_more: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refused)
    assert "Operation not permitted" in change.undo(Paths(), before)


def test_a_kernel_that_comes_back_from_a_vms_user_can_be_written_by_nobody_whom_it_let(
    disk: Path, tmp_path: Path
) -> None:
    for directory in [*disk.parents][:-2]:
        directory.chmod(0o755)
    paths = replace(Paths(), state=tmp_path / "state")
    paths.state.mkdir()
    _setfacl(disk, "u:70001:r")
    os.chown(disk, _UID, _UID)  # as libvirt does
    _setfacl(disk, "u:70001:rw,o::rwx", as_uid=_UID)
    found = disk.stat()
    change = TakeBack(str(disk), found.st_dev, found.st_ino)

    change.apply(paths, change.capture(paths))

    assert disk.stat().st_uid == 0
    written = _acl(disk).split(",")
    assert "user:70001:r--" in written
    assert not any("w" in e for e in written if not e.startswith("user::"))
    assert not disk.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def test_an_entry_under_a_narrow_mask_is_not_revived_by_what_a_vms_user_is_given(
    disk: Path,
) -> None:
    """A base image that root took from its owner: mode 0600, and somebody's old entry."""
    _setfacl(disk, "u:1234:rw")
    disk.chmod(0o600)
    handle = os.open(disk, os.O_PATH)
    try:
        acl.grant(handle, 70000, 4)
        acl.grant(handle, 70001, 4)
        assert "mask::r--" in _acl(disk)
        acl.revoke(handle, 70001)
        assert "mask::r--" in _acl(disk)
        assert acl.permissions(handle, 70000) == 4
    finally:
        os.close(handle)


def test_a_shared_kernel_has_its_whole_former_acl_again_after_the_last_stop(
    disk: Path, tmp_path: Path
) -> None:
    """Whatever the VM's user set while libvirt had given it away, or what it took to stop that."""
    for directory in [*disk.parents][:-2]:
        directory.chmod(0o755)
    paths = replace(Paths(), state=tmp_path / "state")
    paths.state.mkdir()
    os.chown(disk, 1000, 1000)
    _setfacl(disk, "u:1234:rw")
    former, mode = _acl(disk), disk.stat().st_mode
    found = disk.stat()
    file = (str(disk), found.st_dev, found.st_ino)
    lock = LockShared(*file, "3f0ee0bb-0000-4000-8000-000000000001")
    lock.apply(paths, lock.capture(paths))
    assert "w" not in next(entry for entry in _acl(disk).split(",") if entry.startswith("mask"))
    os.chown(disk, _UID, _UID)  # as libvirt does
    _setfacl(disk, "u:70001:rw", as_uid=_UID)
    TakeBack(*file).apply(paths, {})

    assert lock.undo(paths, {}) == ""

    assert (_acl(disk), disk.stat().st_mode, disk.stat().st_uid) == (former, mode, 1000)


@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOENT])
@pytest.mark.parametrize("kind", ["own", "shared", "entry"])
def test_a_file_that_cannot_be_reached_any_more_is_reported_and_blocks_nothing(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, error: int
) -> None:
    """As on a server that shuts root out since the start, or that is away."""
    paths = replace(Paths(), state=tmp_path / "state")
    found = disk.stat()
    file = (str(disk), found.st_dev, found.st_ino)
    change = {
        "own": SetAccess(*file, _USER, 0o600),
        "shared": LockShared(*file, "3f0ee0bb-0000-4000-8000-000000000001"),
        "entry": GrantAccess(*file, _USER, 4),
    }[kind]
    before = change.capture(paths)
    change.apply(paths, before)
    opened = os.open

    def refused(path: str, *more: Any, **others: Any) -> int:
        if path == disk.name:
            raise OSError(error, os.strerror(error))
        return opened(path, *more, **others)

    monkeypatch.setattr(os, "open", refused)
    report = change.undo(paths, before)
    assert str(disk) in report
    assert (os.strerror(error) in report) is (error != errno.ENOENT)

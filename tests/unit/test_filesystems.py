# SPDX-License-Identifier: GPL-2.0-or-later
"""A file system that does not let files belong to any user is known, by its type and by a try."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from virtwarden.system import filesystems

UID = 70000


def mounts(directory: Path, kind: str) -> Path:
    """A mountinfo in which the directory's device has this type, after others."""
    device = directory.stat().st_dev
    numbers = f"{os.major(device)}:{os.minor(device)}"
    file = directory / "mountinfo"
    file.write_text(
        "21 1 0:999 / /proc rw - proc proc rw\n"
        f"36 35 {numbers} / {directory} rw,noatime shared:1 - {kind} server:/export rw\n"
    )
    return file


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "vfat", "fuse", "fuse.sshfs", "fuseblk"])
def test_one_of_which_only_a_try_tells(tmp_path: Path, kind: str) -> None:
    assert filesystems.may_refuse_owners(str(tmp_path), mounts(tmp_path, kind))


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay"])
def test_one_that_keeps_owners_is_not_tried(tmp_path: Path, kind: str) -> None:
    assert not filesystems.may_refuse_owners(str(tmp_path), mounts(tmp_path, kind))


@pytest.mark.parametrize("path", ["", "/nowhere", "a\0b", "\ud800"])
def test_a_path_that_leads_nowhere_is_on_none(tmp_path: Path, path: str) -> None:
    assert not filesystems.may_refuse_owners(path, mounts(tmp_path, "nfs"))


@pytest.mark.root
def test_an_honest_one_keeps_an_owner_and_nothing_is_left_of_the_try(tmp_path: Path) -> None:
    assert filesystems.keeps_owners(tmp_path, UID)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.root
def test_one_that_only_pretends_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fchown", lambda *_: None)
    assert not filesystems.keeps_owners(tmp_path, UID)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("number", "keeps"),
    [(errno.EPERM, False), (errno.EINVAL, False), (errno.ENOSPC, True), (errno.EROFS, True)],
)
def test_a_refusal_tells_and_another_failure_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, *, keeps: bool
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(os, "fchown", fail)
    assert filesystems.keeps_owners(tmp_path, UID) is keeps
    assert [*tmp_path.iterdir()] == []


def test_a_directory_that_is_not_there_tells_nothing(tmp_path: Path) -> None:
    assert filesystems.keeps_owners(tmp_path / "none", UID)

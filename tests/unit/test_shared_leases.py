# SPDX-License-Identifier: GPL-2.0-or-later
"""A shared file is given to root, and given back, as the file that it is: not by its name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from virtwarden.changes import LockShared
from virtwarden.paths import Paths

pytestmark = pytest.mark.root
WEB, DB = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


def base(path: Path, mode: int) -> Path:
    path.write_text("a base")
    os.chown(path, 1000, 1000)
    path.chmod(mode)
    return path


def lock(path: Path, domain: str) -> LockShared:
    found = path.stat()
    return LockShared(str(path), found.st_dev, found.st_ino, domain)


def state(path: Path) -> tuple[int, int]:
    return path.stat().st_uid, path.stat().st_mode & 0o7777


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(run=tmp_path / "run", state=tmp_path / "state")


def test_a_base_that_replaces_another_while_a_vm_runs_is_closed_to_others(
    tmp_path: Path, paths: Paths
) -> None:
    image = base(tmp_path / "base", 0o600)
    web = lock(image, WEB)
    web.apply(paths, {})
    base(tmp_path / "new", 0o666).replace(image)
    db = lock(image, DB)
    db.apply(paths, {})
    assert state(image) == (0, 0o600)
    assert "no longer the file" in web.undo(paths, {})
    assert state(image) == (0, 0o600)
    assert db.undo(paths, {}) == ""
    assert state(image) == (1000, 0o666)
    assert [*paths.shared.iterdir()] == []


@pytest.mark.parametrize("first", [WEB, DB])
def test_a_base_under_two_names_is_closed_until_the_last_vm_stops(
    tmp_path: Path, paths: Paths, first: str
) -> None:
    image = base(tmp_path / "base", 0o644)
    other_name = tmp_path / "mounted elsewhere"
    other_name.hardlink_to(image)  # for the kernel the same as a second mount
    locks = {WEB: lock(image, WEB), DB: lock(other_name, DB)}
    for change in locks.values():
        change.apply(paths, {})
    locks.pop(first).undo(paths, {})
    assert state(image) == (0, 0o600)
    for change in locks.values():
        change.undo(paths, {})
    assert state(image) == (1000, 0o644)
    assert [*paths.shared.iterdir()] == []

# SPDX-License-Identifier: GPL-2.0-or-later
"""A file that libvirt left to a VM's user: what this user set on it is nobody's right later."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from virtwarden.changes import Change, LockShared, SetAccess, access
from virtwarden.paths import Paths
from virtwarden.system import acl, users

pytestmark = pytest.mark.root
WEB, DB = 70001, 70002


@pytest.fixture
def medium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Left to web01, whose guest escaped and let everybody write it, and itself by name."""
    monkeypatch.setattr(users, "domain_of", lambda uid: "web01" if uid == WEB else "")
    monkeypatch.setattr(access, "user_named", lambda name: users.Account(name, DB, DB, "db01"))
    file = tmp_path / "medium"
    file.write_text("data")
    os.chown(file, WEB, WEB)
    file.chmod(0o666)
    handle = os.open(file, os.O_RDONLY)
    acl.grant(handle, WEB, 6)
    os.close(handle)
    return file


@pytest.mark.parametrize("kind", ["disk", "shared"])
def test_a_vm_that_a_medium_was_left_to_does_not_write_it_after_another_vm_used_it(
    medium: Path, kind: str, tmp_path: Path
) -> None:
    paths = Paths(run=tmp_path / "run", state=tmp_path / "state")
    found = medium.stat()
    file = (str(medium), found.st_dev, found.st_ino)
    disk: Change = SetAccess(*file, "vmw-db01", 0o600)
    change = disk if kind == "disk" else LockShared(*file, "db01")
    before = change.capture(paths)
    for moment in ("while it runs", "after its stop"):
        change.apply(paths, before) if "runs" in moment else change.undo(paths, before)
        handle = os.open(medium, os.O_RDONLY)
        assert acl.text(handle) == "", moment
        os.close(handle)
        assert medium.stat().st_mode & 0o777 == 0o600, moment
        assert medium.stat().st_uid == (DB if "runs" in moment and kind == "disk" else 0), moment

# SPDX-License-Identifier: GPL-2.0-or-later
"""Who else has a file open: what the kernel says of it, and where it says nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from virtwarden.system import filesystems, openers
from virtwarden.system.openers import Use


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[int]:
    file = tmp_path / "disk.raw"
    file.write_bytes(b"disk")
    handle = os.open(file, os.O_PATH)
    yield handle
    os.close(handle)


@pytest.mark.parametrize(
    ("how", "on_a_local_one"), [(os.O_RDWR, Use.WRITING), (os.O_RDONLY, Use.READING)]
)
@pytest.mark.parametrize("kind", ["ext4", "nfs4", "nfs", "cifs", "smb3"])
def test_a_server_that_gives_no_lease_tells_nothing_of_who_has_a_file_open(
    disk: int, monkeypatch: pytest.MonkeyPatch, how: int, on_a_local_one: Use, kind: str
) -> None:
    monkeypatch.setattr(filesystems, "kind", lambda _path: kind)
    opened = os.open(f"/proc/self/fd/{disk}", how)
    found = openers.others_use(disk)
    os.close(opened)
    assert found is (on_a_local_one if kind == "ext4" else Use.UNKNOWN)


def test_nor_does_one_that_shuts_root_out(disk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refused)
        found = openers.others_use(disk)
    assert found is Use.UNKNOWN


def test_a_file_that_nobody_has_open_is_nobodys(disk: int) -> None:
    assert openers.others_use(disk) is Use.NONE

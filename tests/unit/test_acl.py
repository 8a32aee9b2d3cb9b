# SPDX-License-Identifier: GPL-2.0-or-later
"""What is asked of a file's ACL while another process changes it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from virtwarden.system import acl

posix1e = pytest.importorskip("posix1e")


def failing_once(number: int) -> Callable[..., object]:
    """libacl's reading of an ACL, which goes wrong the first time."""
    read, errors = posix1e.ACL, [OSError(number, os.strerror(number))]

    def fallible(**what: object) -> object:
        if errors and "file" in what:
            raise errors.pop()
        return read(**what)

    return fallible


def test_an_acl_that_grows_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of a directory of images does when many domains start at once."""
    handle = os.open(tmp_path, os.O_PATH)
    acl.grant(handle, 70001, 1)
    monkeypatch.setattr(posix1e, "ACL", failing_once(errno.ERANGE))
    assert acl.permissions(handle, uid=70000) is None
    monkeypatch.setattr(posix1e, "ACL", failing_once(errno.EACCES))
    with pytest.raises(PermissionError):
        acl.permissions(handle, uid=70000)
    os.close(handle)


def test_a_group_that_may_only_execute_a_file_gets_no_more_by_its_mode(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.touch(0o755)
    handle = os.open(program, os.O_PATH)
    before = acl.text(handle)
    for _ in range(2):
        acl.let_only_execute(handle, 70000)
    assert acl.named(acl.text(handle)) == {"group:70000:--x"}
    assert acl.is_only_executed_by(handle, 70000)
    assert not acl.is_only_executed_by(handle, 70001)
    assert program.stat().st_mode & 0o777 == 0o755
    acl.let_read_again(handle, 70001)
    assert acl.is_only_executed_by(handle, 70000)
    acl.let_read_again(handle, 70000)
    assert acl.text(handle) == before == ""
    os.close(handle)


def test_a_group_that_an_admin_lets_read_a_file_keeps_that(tmp_path: Path) -> None:
    handle = os.open(tmp_path, os.O_PATH)
    acl.restore(handle, "u::rwx,g::r-x,g:70000:r-x,m::r-x,o::r-x")
    acl.let_read_again(handle, 70000)
    assert acl.named(acl.text(handle)) == {"group:70000:r-x"}
    os.close(handle)

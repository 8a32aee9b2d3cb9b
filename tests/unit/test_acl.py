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

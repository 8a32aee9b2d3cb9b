# SPDX-License-Identifier: GPL-2.0-or-later
"""A process is seen as it is, whatever it says of itself."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from virtwarden.system import process

PR_SET_NAME = 15


@pytest.mark.parametrize("name", [b"\x80", b"\x1cno line", b"\xe2\x80\xa8Uid:\t0", b"a\nb:) Z"])
def test_it_hides_behind_no_name(name: bytes) -> None:
    former = Path("/proc/self/comm").read_bytes().rstrip(b"\n")
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_NAME, name, 0, 0, 0)
    try:
        found = process.read(os.getpid())
    finally:
        libc.prctl(PR_SET_NAME, former, 0, 0, 0)
    assert found.uids[0] == os.getuid()

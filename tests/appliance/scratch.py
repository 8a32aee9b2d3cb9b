# SPDX-License-Identifier: GPL-2.0-or-later
"""Directories in memory, for what lasts no longer than the process that works with it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# dpkg, and a guest's journal, sync after each file: in memory that costs nothing.
_MEMORY = Path("/dev/shm")
_PREFIX = "warden-appliance-"


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory that is gone at the end; what a process that was killed left goes first."""
    for left in _MEMORY.glob(f"{_PREFIX}*"):
        if not Path("/proc", left.name.removeprefix(_PREFIX).split("-")[0]).exists():
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-", dir=_MEMORY) as directory:
        yield Path(directory)

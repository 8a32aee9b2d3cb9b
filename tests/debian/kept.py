# SPDX-License-Identifier: GPL-2.0-or-later
"""Directories that are made once and kept below build, for whoever asks next."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def key(*parts: str) -> str:
    """A short name for all that something is made of."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def once(store: Path, name: str, make: Callable[[Path], None]) -> Path:
    """The directory of this name in the store, which `make` fills if nobody did before.

    It is there whole or not at all, whoever else builds it meanwhile.
    """
    store.mkdir(parents=True, exist_ok=True)
    directory = store / name
    with locked(store / f"{name}.lock"):
        if not directory.exists():
            unfinished = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=store))
            try:
                make(unfinished)
                unfinished.rename(directory)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return directory


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until nobody else holds this lock, and hold it."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

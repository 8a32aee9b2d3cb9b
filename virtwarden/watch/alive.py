# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether anybody watches the rules. Who does holds a lock; it goes with its process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from virtwarden.paths import Paths
from virtwarden.system import files


@contextmanager
def watching(paths: Paths) -> Iterator[None]:
    """Hold the lock."""
    with files.locked(paths.watched):
        yield


def is_watched(paths: Paths) -> bool:
    """Whether somebody holds it."""
    return files.is_locked(paths.watched)

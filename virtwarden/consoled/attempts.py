# SPDX-License-Identifier: GPL-2.0-or-later
"""Slows down failed attempts: after a few, each next one must wait twice as long."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.system import files

FREE = 3
FIRST_WAIT_SECONDS = 15
LONGEST_WAIT_SECONDS = 300


@contextmanager
def attempt(paths: Paths, uid: int) -> Iterator[None]:
    """One attempt of this user; it fails if its block raises, hangs up or is killed.

    A user's attempts run one at a time: the next one waits. Raises HostError where too many failed
    lately.
    """
    directory = paths.console_attempts / str(uid)
    with files.locked(directory):
        record = directory / "failed"
        failed, last = _read(record)
        left = last + wait_after(failed) - _now()
        if left > 0:
            raise HostError(
                f"{failed} attempts failed; the next one is in {math.ceil(left)} s",
                fix=f"wait; as root, to forget them: rm -r {directory}",
            )
        # The failure is written before the outcome is known, so that hanging up early gains
        # nothing.
        _write(record, failed + 1)
        try:
            yield
        except BaseException:
            _write(record, failed + 1)
            raise
        record.unlink(missing_ok=True)


def wait_after(failed: int) -> int:
    """For how many seconds the user must wait after so many failures in a row."""
    if failed < FREE:
        return 0
    doublings = min(failed - FREE, 10)
    return min(FIRST_WAIT_SECONDS << doublings, LONGEST_WAIT_SECONDS)


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _write(record: Path, failed: int) -> None:
    files.write_atomically(record, json.dumps([failed, _now()]).encode(), 0o600)


def _read(record: Path) -> tuple[int, float]:
    try:
        failed, last = json.loads(record.read_text())
        return int(failed), float(last)
    except FileNotFoundError:
        return 0, 0.0

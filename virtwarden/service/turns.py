"""Where many domains start at once they take turns, and all of them run sooner.

A start is work for every CPU: twenty that take the caches away from each other take longer than
twenty one after the other. A turn is a courtesy all the same. No start depends on it: whoever has
waited so long goes without.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
from contextlib import suppress
from pathlib import Path

from virtwarden.paths import Paths
from virtwarden.system import files

# While one waits for its disk another can go on.
_AT_ONCE = (os.cpu_count() or 1) + 1
_PATIENCE_SECONDS = 2
# Of whose start nobody told the end: the service was not there.
_FORGOTTEN_SECONDS = 10


class Turns:
    """Who starts just now; to be made before the processes are forked that ask for turns."""

    def __init__(self, paths: Paths, at_once: int = _AT_ONCE) -> None:
        self._free = multiprocessing.Semaphore(at_once)
        self._taken = paths.run / "turns"
        files.private_directory(self._taken)
        for left in self._taken.iterdir():
            left.unlink()

    def take(self, domain: str) -> bool:
        """Wait for a domain's turn to start; whether it has it, or is to go without."""
        if not self._free.acquire(timeout=_PATIENCE_SECONDS):
            self._end_forgotten()
            return False
        try:
            self._mark(domain).touch(exist_ok=False)
        except OSError:  # it has one, or no file can be made
            self._free.release()
            return False
        return True

    def end(self, domain: str) -> None:
        """It has started, or will not; harmless where it has no turn."""
        self._end(self._mark(domain))

    def _mark(self, domain: str) -> Path:
        # A domain's name may be longer than a file's.
        return self._taken / hashlib.sha256(domain.encode(errors="surrogateescape")).hexdigest()

    def _end(self, mark: Path) -> None:
        with suppress(OSError):  # of two who end it one releases it
            mark.unlink()
            self._free.release()

    def _end_forgotten(self) -> None:
        due = time.time() - _FORGOTTEN_SECONDS
        with suppress(OSError):  # another one was faster
            for mark in self._taken.iterdir():
                if mark.stat().st_mtime < due:
                    self._end(mark)

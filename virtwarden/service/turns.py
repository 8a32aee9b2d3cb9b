# SPDX-License-Identifier: GPL-2.0-or-later
"""Where many domains start at once they take turns, and all of them run sooner.

A start is work for every CPU: twenty that take the caches away from each other take longer than
twenty one after the other. A turn is a courtesy all the same. No start depends on it: whoever has
waited so long goes without.
"""

from __future__ import annotations

import hashlib
import os
import select
import time
from contextlib import suppress
from pathlib import Path

from virtwarden.paths import Paths
from virtwarden.system import files

# While one waits for its disk another can go on.
_AT_ONCE = (os.cpu_count() or 1) + 1
_PATIENCE_SECONDS = 2.0
# Of whose start nobody told the end: the service was not there, or was killed.
_FORGOTTEN_SECONDS = 10.0


class Turns:
    """Who starts just now; to be made before the processes are forked that ask for turns."""

    def __init__(self, paths: Paths, at_once: int = _AT_ONCE) -> None:
        self._at_once = at_once
        self._free = os.eventfd(at_once, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._taken = paths.turns
        with suppress(OSError):  # then none is ever taken, and nobody waits
            files.private_directory(self._taken)
            for left in self._taken.iterdir():
                left.unlink()

    def take(self, domain: str) -> bool:
        """Wait for a domain's turn to start; whether it has it, or is to go without."""
        if not self._wait():
            self._end_forgotten()
            return False
        try:
            with self._mark(domain).open("x") as mark:
                mark.write(f"{time.monotonic()}")
        except OSError:  # it has one, or no file can be made
            self._give_back()
            return False
        return True

    def end(self, domain: str) -> None:
        """It has started, or will not; harmless where it has no turn."""
        self._end(self._mark(domain))

    def _wait(self) -> bool:
        give_up = time.monotonic() + _PATIENCE_SECONDS
        poller = select.poll()
        poller.register(self._free, select.POLLIN)
        while not self._get():
            left = give_up - time.monotonic()
            if left <= 0:
                return False
            poller.poll(left * 1000)
        return True

    def _get(self) -> bool:
        try:
            os.eventfd_read(self._free)
        except BlockingIOError:
            return False
        return True

    def _give_back(self, turns: int = 1) -> None:
        os.eventfd_write(self._free, turns)

    def _mark(self, domain: str) -> Path:
        # A domain's name may be longer than a file's.
        return self._taken / hashlib.sha256(domain.encode(errors="surrogateescape")).hexdigest()

    def _end(self, mark: Path) -> None:
        with suppress(OSError):  # of two who end it one gives it back
            mark.unlink()
            self._give_back()

    def _end_forgotten(self) -> None:
        """Nobody was ready for so long: see that each turn is somebody's."""
        with suppress(OSError), files.locked(self._taken):
            marks = list(self._taken.iterdir())
            for mark in marks:
                if _age(mark) > _FORGOTTEN_SECONDS:
                    self._end(mark)
            if self._get():
                self._give_back()
            elif len(marks) < self._at_once:  # who was killed with a turn in hand left no mark
                self._give_back(self._at_once - len(marks))


def _age(mark: Path) -> float:
    """Seconds, as the clock counts them that nobody sets."""
    try:
        return time.monotonic() - float(mark.read_text())
    except (OSError, ValueError):  # it is just being written
        return 0

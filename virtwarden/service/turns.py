# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains that start at the same time take turns, so that all of them run sooner.

A start is work for every CPU. Twenty starts that take the caches from each other take longer than
twenty starts in sequence. But no start depends on a turn: a start that has waited for
_PATIENCE_SECONDS goes on without one.
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

# One more than there are CPUs: while one start waits for its disk, another can go on.
_AT_ONCE = (os.cpu_count() or 1) + 1
_PATIENCE_SECONDS = 2.0
# A turn that is older may be taken back: the service was away or killed when the start ended.
_FORGOTTEN_SECONDS = 10.0


class Turns:
    """The domains that are starting. Make it before forking the processes that ask for turns."""

    def __init__(self, paths: Paths, at_once: int = _AT_ONCE) -> None:
        self._at_once = at_once
        self._free = os.eventfd(at_once, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._taken = paths.turns
        with suppress(OSError):  # then no turn is taken, and nobody waits
            files.private_directory(self._taken)
            for left in self._taken.iterdir():
                left.unlink()

    def take(self, domain: str) -> bool:
        """Wait for a domain's turn to start; whether it got one. If not, it starts without."""
        if not self._wait():
            self._end_forgotten()
            return False
        try:
            with self._mark(domain).open("x") as mark:
                mark.write(f"{time.monotonic()}")
        except OSError:  # it has a turn already, or no file can be made
            self._give_back()
            return False
        return True

    def end(self, domain: str) -> None:
        """End a domain's turn: it has started, or will not. Harmless where it has no turn."""
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
        # A domain's name may be longer than a file name can be.
        return self._taken / hashlib.sha256(domain.encode(errors="surrogateescape")).hexdigest()

    def _end(self, mark: Path) -> None:
        with suppress(OSError):  # where two processes end it, only one gives it back
            mark.unlink()
            self._give_back()

    def _end_forgotten(self) -> None:
        """Free the turns that no start has: nobody gave one back while a start waited."""
        with suppress(OSError), files.locked(self._taken):
            marks = list(self._taken.iterdir())
            for mark in marks:
                if _age(mark) > _FORGOTTEN_SECONDS:
                    self._end(mark)
            if self._get():
                self._give_back()
            elif len(marks) < self._at_once:  # a process that was killed with a turn left no mark
                self._give_back(self._at_once - len(marks))


def _age(mark: Path) -> float:
    """Seconds since the mark was made, by the monotonic clock, which nobody can set."""
    try:
        return time.monotonic() - float(mark.read_text())
    except (OSError, ValueError):  # another process is writing it
        return 0

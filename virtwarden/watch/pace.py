# SPDX-License-Identifier: GPL-2.0-or-later
"""How often rules may be restored: somebody who flushes them in a loop must not cost a CPU."""

from __future__ import annotations

from collections import deque

# For each second of a CPU, this many of rest: a fifth of one CPU.
_REST = 4
_MINUTE = 60
# What an admin does in a minute is less.
_OFTEN = 10


class Pace:
    """When the next look may begin, and how often something was restored. It asks no clock."""

    def __init__(self) -> None:
        self._free_at = 0.0
        self._restored: deque[float] = deque()
        self._told_at = float("-inf")

    def rest(self, now: float) -> float:
        """The seconds until the next look may begin."""
        return max(0.0, self._free_at - now)

    def note_look(self, now: float, seconds: float) -> None:
        """Note how many seconds of a CPU a look took that ends now, with what it restored."""
        self._free_at = now + _REST * seconds

    def note_restored(self, now: float) -> None:
        """Note that something was restored."""
        self._restored.append(now)
        while self._restored[0] < now - _MINUTE:
            self._restored.popleft()

    @property
    def in_a_minute(self) -> int:
        """How often something was restored in the minute before the last time."""
        return len(self._restored)

    @property
    def is_often(self) -> bool:
        """Whether somebody fights us."""
        return self.in_a_minute > _OFTEN

    def is_to_tell(self, now: float) -> bool:
        """Whether to tell of it: once a minute."""
        if now < self._told_at + _MINUTE:
            return False
        self._told_at = now
        return True

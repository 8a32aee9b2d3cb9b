# SPDX-License-Identifier: GPL-2.0-or-later
"""systemd's watchdog: it restarts the service where the thread that watches rules hangs.

The thread beats. Only as long as it does, the first process tells systemd that all is well.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

# Of systemd's time (sd_watchdog_enabled(3)), how often it is told, and how old a beat may be.
_TOLD_AT, _OLDEST = 0.25, 0.5
_MICROSECONDS = 1_000_000


class Watchdog:
    """When to tell systemd that all is well. It asks no clock."""

    def __init__(self, environment: Mapping[str, str], now: float) -> None:
        self._seconds = _seconds(environment)
        self._beaten_at = self._told_at = now

    def beat(self, now: float) -> None:
        """Note that the thread lives."""
        self._beaten_at = now

    def wait(self, now: float) -> float | None:
        """The seconds until systemd must be told; None where it does not want to be."""
        if self._seconds is None:
            return None
        return max(0.0, self._told_at + self._seconds * _TOLD_AT - now)

    def is_to_tell(self, now: float) -> bool:
        """Whether to tell systemd now."""
        if self._seconds is None or self.wait(now):
            return False
        self._told_at = now
        return now <= self._beaten_at + self._seconds * _OLDEST


def _seconds(environment: Mapping[str, str]) -> float | None:
    try:
        microseconds = int(environment["WATCHDOG_USEC"])
        wanted = int(environment.get("WATCHDOG_PID", os.getpid()))
    except (KeyError, ValueError):
        return None
    return microseconds / _MICROSECONDS if wanted == os.getpid() and microseconds > 0 else None

# SPDX-License-Identifier: GPL-2.0-or-later
"""systemd hears that all is well only as long as the rules are watched."""

from __future__ import annotations

import os

import pytest

from virtwarden.service.watchdog import Watchdog

WANTED = {"WATCHDOG_USEC": "120000000", "WATCHDOG_PID": str(os.getpid())}


def test_systemd_is_told_in_time_while_the_thread_beats() -> None:
    watchdog = Watchdog(WANTED, 100.0)
    assert watchdog.wait(100.0) == 30.0
    assert not watchdog.is_to_tell(110.0)
    for now in (130.0, 160.0, 190.0, 220.0):
        watchdog.beat(now - 1)
        assert watchdog.wait(now) == 0.0
        assert watchdog.is_to_tell(now)
        assert not watchdog.is_to_tell(now)


def test_systemd_is_not_told_where_the_thread_hangs_and_hears_again_once_it_goes_on() -> None:
    watchdog = Watchdog(WANTED, 100.0)
    assert watchdog.is_to_tell(130.0)
    assert not watchdog.is_to_tell(161.0)
    assert watchdog.wait(161.0) == 30.0
    watchdog.beat(190.0)
    assert watchdog.is_to_tell(191.0)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
    ],
)
def test_without_a_watchdog_nobody_is_told(environment: dict[str, str]) -> None:
    watchdog = Watchdog(environment, 0.0)
    assert watchdog.wait(1000.0) is None
    assert not watchdog.is_to_tell(1000.0)

# SPDX-License-Identifier: GPL-2.0-or-later
"""A bar that grows on a terminal, and a line now and then where there is none."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

_WIDTH = 40
_BETWEEN_UPDATES_SECONDS = 0.2
_BETWEEN_LINES_PERCENT = 10


def bar(title: str, stream: TextIO = sys.stderr) -> Callable[[int, int], None]:
    """Gives what is to be called with how much of how much is done."""
    began = shown = time.monotonic()
    last_percent = -1

    def update(done: int, of: int) -> None:
        nonlocal shown, last_percent
        now = time.monotonic()
        percent = 100 * done // of if of else 100
        if stream.isatty():
            if now - shown < _BETWEEN_UPDATES_SECONDS and done < of:
                return
            shown = now
            filled = "#" * (_WIDTH * percent // 100)
            left = (of - done) * (now - began) / done if done else 0
            end = "\n" if done >= of else ""
            stream.write(f"\r{title} [{filled:.<{_WIDTH}}] {percent:3d} %  {left:5.0f} s left{end}")
            stream.flush()
        elif percent // _BETWEEN_LINES_PERCENT > last_percent // _BETWEEN_LINES_PERCENT:
            last_percent = percent
            stream.write(f"{title}: {percent} %\n")
            stream.flush()

    return update

# SPDX-License-Identifier: GPL-2.0-or-later
"""Landlock in the running kernel; landlock(7)."""

from __future__ import annotations

import ctypes

_NR_LANDLOCK_CREATE_RULESET = 444
_VERSION = 1


def abi() -> int:
    """The kernel's Landlock ABI, 1 or higher; 0 or less where Landlock is missing or off."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = ctypes.c_long(_NR_LANDLOCK_CREATE_RULESET)
    return int(libc.syscall(number, None, ctypes.c_size_t(0), _VERSION))

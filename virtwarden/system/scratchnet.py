# SPDX-License-Identifier: GPL-2.0-or-later
"""A short-lived network namespace, to lay rules in and see how the host's tools list them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from virtwarden.errors import CommandError

# linux/sched.h
_CLONE_NEWNET = 0x40000000

Seen = TypeVar("Seen")


def in_scratch_network(look: Callable[[], Seen]) -> Seen:
    """What `look` returns in a new network namespace, which has only `lo`.

    Only one thread enters the namespace (unshare(2)), with the commands that it runs. The rest of
    the process stays on the host's network. The kernel removes the namespace, with all rules in
    it, when the thread ends. Raises CommandError where the kernel makes none, and what `look`
    raises.
    """

    def apart() -> Seen:
        _unshare(_CLONE_NEWNET)
        return look()

    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(apart).result()


def _unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise CommandError(
            f"rules cannot be compared: the kernel makes no network namespace: {reason}",
            code=1,
            said=reason,
            fix="sysctl user.max_net_namespaces",
        )

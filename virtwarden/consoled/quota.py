# SPDX-License-Identifier: GPL-2.0-or-later
"""How many requests one account, and all together, may have at the console service at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from virtwarden.consoled.operators import Operator
from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.system import files

# A request lasts until its ticket is used or over.
REQUESTS = 8
# Fewer than systemd accepts (virt-warden-console.socket): root's place is never taken.
REQUESTS_OF_ALL = 40


@contextmanager
def request(paths: Paths, operator: Operator) -> Iterator[None]:
    """Hold one of the operator's places; root needs none.

    Raises HostError where all are taken. A place is a lock, which ends with its process.
    """
    with ExitStack() as stack:
        if not operator.is_root:
            _take_place(stack, paths, operator)
        yield


def _take_place(stack: ExitStack, paths: Paths, operator: Operator) -> None:
    if not _is_taken(stack, paths, str(operator.uid), REQUESTS):
        raise HostError(
            f"{operator.name} has {REQUESTS} requests for consoles already",
            fix="use one of the tickets, or wait until one is over",
        )
    if not _is_taken(stack, paths, "all", REQUESTS_OF_ALL):
        raise HostError(
            f"all operators together have {REQUESTS_OF_ALL} requests for consoles already",
            fix="wait until one is over",
        )


def _is_taken(stack: ExitStack, paths: Paths, whose: str, places: int) -> bool:
    """Whether one of so many places was free, which is taken then."""
    for number in range(places):
        with suppress(BlockingIOError):
            stack.enter_context(
                files.locked(paths.console_requests / f"{whose}.{number}", wait=False)
            )
            return True
    return False

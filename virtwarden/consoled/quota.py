# SPDX-License-Identifier: GPL-2.0-or-later
"""How many requests one account may have at the console service at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from virtwarden.consoled.operators import Operator
from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.system import files

# A request lasts until its ticket is used or over.
REQUESTS = 8


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
    for number in range(REQUESTS):
        place = paths.console_requests / f"{operator.uid}.{number}"
        with suppress(BlockingIOError):
            stack.enter_context(files.locked(place, wait=False))
            return
    raise HostError(
        f"{operator.name} has {REQUESTS} requests for consoles already",
        fix="use one of the tickets, or wait until one is over",
    )

# SPDX-License-Identifier: GPL-2.0-or-later
"""How many requests one account may have at the console service at the same time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from virtwarden.consoled.operators import Operator
from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.system import files

# A request lasts until its ticket is used or over.
REQUESTS = 8


@contextmanager
def request(paths: Paths, operator: Operator) -> Iterator[None]:
    """Hold one of the operator's places; root needs none.

    Raises HostError where all are taken. A place is a lock (flock(2)), which ends with its process.
    """
    if operator.is_root:
        yield
        return
    place = _free_place(paths, operator)
    try:
        yield
    finally:
        os.close(place)


def _free_place(paths: Paths, operator: Operator) -> int:
    directory = paths.run / "requests"
    files.private_directory(directory)
    for number in range(REQUESTS):
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        place = os.open(directory / f"{operator.uid}.{number}", flags, 0o600)
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(place)
        else:
            return place
    raise HostError(
        f"{operator.name} has {REQUESTS} requests for consoles already",
        fix="use one of the tickets, or wait until one is over",
    )

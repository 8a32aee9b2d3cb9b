# SPDX-License-Identifier: GPL-2.0-or-later
"""What a domain's wrapper is told of a start of a domain that nobody enrolled.

The wrapper reads it whoever it runs as; wrapper/ticket.py has the same words.
"""

from __future__ import annotations

from virtwarden.paths import Paths
from virtwarden.system import files

OWN_USER = "own-user"
"""It gets its own user, or does not start."""
OWN_USER_IF_IT_CAN = "own-user-if-it-can"
"""It gets its own user, or starts as libvirt's."""
AS_IT_IS = "as-it-is"
"""It starts as libvirt has made it."""

_READABLE = 0o644


def announce(paths: Paths, domain: str, said: str) -> None:
    """Say one of these words of a domain's start."""
    files.passable_directory(paths.run)
    files.passable_directory(paths.waiting)
    files.write_atomically(paths.waiting / domain, said.encode(), _READABLE)


def is_as_it_is(paths: Paths, domain: str) -> bool:
    """Whether it was said that the domain starts as libvirt has made it."""
    return files.read_if_there(paths.waiting / domain) == AS_IT_IS


def forget(paths: Paths, domain: str) -> None:
    """Say nothing; harmless if nothing was said."""
    if paths.waiting.exists():
        files.discard(paths.waiting / domain)

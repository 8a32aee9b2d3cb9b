# SPDX-License-Identifier: GPL-2.0-or-later
"""The latest ticket of each domain, and whether the process that revokes it still lives.

Only the latest can open a console: a new one replaces the password. Each has a file, which its
process keeps locked. The kernel ends a lock with its process, however that ends. So an unlocked
file is that of a ticket which nobody is going to revoke.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from virtwarden.paths import Paths
from virtwarden.system import files

_MARK_BYTES = 16


@dataclass(frozen=True)
class Latest:
    """A ticket that is or was the latest of its domain; `handle` holds the lock of its file."""

    file: Path
    content: str
    handle: int

    @classmethod
    def new(cls, paths: Paths, domain: str, operator: str, login: str) -> Latest:
        """A new ticket, which is the latest from now on; `domain` is a UUID."""
        files.private_directory(paths.console_tickets)
        mark = secrets.token_hex(_MARK_BYTES)
        content = json.dumps({"mark": mark, "operator": operator, "login": login})
        file = paths.console_tickets / domain
        return cls(file, content, _written_and_locked(file, content, mark))

    @property
    def domain(self) -> str:
        """The UUID of its domain."""
        return self.file.name

    @property
    def operator(self) -> str:
        """Who got it."""
        return str(json.loads(self.content)["operator"])

    @property
    def login(self) -> str:
        """How it lets a viewer in: `vnc` or `spice`, by the display's password, or `sasl`."""
        return str(json.loads(self.content)["login"])

    def holds(self) -> bool:
        """Whether there is no newer ticket."""
        try:
            return self.file.read_text() == self.content
        except FileNotFoundError:
            return False

    def end(self) -> None:
        """Leave nothing of the ticket behind."""
        if self.holds():
            self.file.unlink(missing_ok=True)


def abandoned(paths: Paths) -> Iterator[Latest]:
    """The latest tickets whose processes are gone; this process holds each one's lock meanwhile."""
    for file in sorted(paths.console_tickets.glob("[!.]*")):
        try:
            handle = os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:  # it is over
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield Latest(file, os.pread(handle, os.fstat(handle).st_size, 0).decode(), handle)
        except BlockingIOError:
            continue
        finally:
            os.close(handle)


def _written_and_locked(file: Path, content: str, mark: str) -> int:
    """It gets its name once it is locked, so that nobody takes it for that of a dead process."""
    unnamed = file.with_name(f".{mark}")
    handle = os.open(unnamed, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    os.write(handle, content.encode())
    unnamed.replace(file)
    return handle

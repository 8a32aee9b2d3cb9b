# SPDX-License-Identifier: GPL-2.0-or-later
"""The change that limits what a domain's user sends from this host.

A note of each limit lets it be restored after a flush.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from virtwarden.changes import worked
from virtwarden.changes.base import Before, Change, Scope
from virtwarden.errors import CommandError, HostError
from virtwarden.paths import Paths
from virtwarden.system import files, reach, users
from virtwarden.system.reach import Limit, Way


@dataclass(frozen=True)
class LimitReach(Change):
    """Let a domain's user send nothing from the host but what goes these ways."""

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    domain: str
    user: str
    ways: tuple[Way, ...]

    def __post_init__(self) -> None:
        """Make the ways from dicts, which a journal gives."""
        object.__setattr__(self, "ways", _ways(self.ways))

    def describe(self) -> str:
        if not self.ways:
            return f"let {self.user} send nothing from this host"
        return f"let {self.user} send from this host only what QEMU needs ({_told(self.ways)})"

    def capture(self, paths: Paths) -> Before:
        return {}

    def apply(self, paths: Paths, before: Before) -> None:
        """Raises HostError where there is no such user."""
        account = users.account(self.user)
        if account is None:
            raise HostError(f"there is no user {self.user}")
        limit = Limit(self.domain, account.uid, self.ways)
        with files.locked(paths.reach):
            is_new = noted(paths, self.domain) is None
            files.write_atomically(paths.reach / self.domain, _written(limit), 0o600)
            # It may be the first one, or somebody has flushed the rules.
            if not (is_new and not limit.closing and _works(lambda: reach.add(limit))):
                reach.set_all(every(paths))
        worked.note_limited_reach(paths)

    def undo(self, paths: Paths, before: Before) -> str:
        with files.locked(paths.reach):
            limit = noted(paths, self.domain)
            if limit is not None:
                others = [each for each in every(paths) if each != limit]
                # The table goes with the last one. Ports may be closed for several domains.
                is_alone = not (others and not limit.closing)
                if is_alone or not _works(lambda: reach.remove(limit)):
                    reach.set_all(others)
            files.discard(paths.reach / self.domain)
        return ""


def _told(ways: tuple[Way, ...]) -> str:
    return "; ".join(map(str, ways))


def _works(act: Callable[[], None]) -> bool:
    try:
        act()
    except CommandError:
        return False
    return True


def noted(paths: Paths, domain: str) -> Limit | None:
    """The limit of a domain's user, as it was when the domain started; None if it has none."""
    try:
        written = json.loads((paths.reach / domain).read_text())
    except FileNotFoundError:
        return None
    return Limit(written["domain"], written["uid"], _ways(written["ways"]))


def every(paths: Paths) -> list[Limit]:
    """All noted limits. The caller holds the lock of `paths.reach`."""
    names = sorted(note.name for note in paths.reach.iterdir() if note.name[0] != ".")
    return [limit for limit in (noted(paths, name) for name in names) if limit]


def _written(limit: Limit) -> bytes:
    return json.dumps(asdict(limit)).encode()


def _ways(ways: Iterable[Any]) -> tuple[Way, ...]:
    return tuple(way if isinstance(way, Way) else _way(way) for way in ways)


def _way(written: dict[str, Any]) -> Way:
    return Way(**{**written, "addresses": tuple(written["addresses"])})

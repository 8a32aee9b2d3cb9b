# SPDX-License-Identifier: GPL-2.0-or-later
"""How many frames each promise of a NIC dropped since the host booted, and when the last.

The kernel counts since a tap's rules were laid. They are laid anew after a flush, and go with the
tap. So what it counted is added up here before that, and now and then.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from virtwarden.paths import Paths
from virtwarden.system import files

Key = tuple[str, str, str]
"""A domain's UUID, a NIC's MAC address and a promise."""

_QUIET_SECONDS = 60
_NEVER = 0.0


@dataclass(frozen=True)
class Reading:
    """What the kernel has counted at one tap, by promise; `index` is the interface's."""

    domain: str
    nic: str
    index: int
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Drops:
    """The frames of one NIC that one promise dropped; times are in seconds since the epoch.

    `told` is how many of them the log has, and `told_at` when it was told last.
    """

    domain: str
    nic: str
    promise: str
    frames: int = 0
    last: float = _NEVER
    told: int = 0
    told_at: float = _NEVER

    @property
    def key(self) -> Key:
        """What it is about."""
        return self.domain, self.nic, self.promise


@dataclass(frozen=True)
class _Kept:
    """What is kept: the drops, and the last counts of each tap, by its index."""

    drops: dict[Key, Drops]
    seen: dict[str, dict[str, int]]


def record(paths: Paths, readings: Sequence[Reading], *, are_all: bool = False) -> list[Drops]:
    """Add what the kernel has counted since the last look. Gives all drops, the latest first.

    With `are_all` there are no other taps.
    """
    with files.locked(paths.drops):
        former = _read(paths)
        kept = _added(former, readings, are_all=are_all)
        if kept != former:
            _write(paths, kept)
        return _latest_first(kept)


def look(paths: Paths, readings: Sequence[Reading]) -> list[Drops]:
    """The same, but write nothing down; what is new since the last look counts as of now."""
    return _latest_first(_added(_read(paths), readings, are_all=True))


def _added(former: _Kept, readings: Sequence[Reading], *, are_all: bool) -> _Kept:
    drops = dict(former.drops)
    for reading in readings:
        for key, frames in _grown(former.seen, reading):
            before = drops.get(key, Drops(*key))
            drops[key] = replace(before, frames=before.frames + frames, last=time.time())
    seen = {str(each.index): dict(each.counts) for each in readings}
    return _Kept(drops, seen if are_all else former.seen | seen)


def take_untold(paths: Paths) -> list[list[Drops]]:
    """What is to be told now, at most once a minute for each domain and promise; it is told then.

    Each list is of one domain and promise: the drops of each NIC, with the untold frames alone. The
    caller tells it without the lock: a hook may wait for the lock, and libvirt for the hook.
    """
    now = time.time()
    with files.locked(paths.drops):
        kept = _read(paths)
        groups: dict[tuple[str, str], list[Drops]] = {}
        for each in kept.drops.values():
            groups.setdefault((each.domain, each.promise), []).append(each)
        untold = [
            [each for each in drops if each.frames > each.told]
            for drops in groups.values()
            if now - max(each.told_at for each in drops) >= _QUIET_SECONDS
        ]
        due = [drops for drops in untold if drops]
        told = {e.key: replace(e, told=e.frames, told_at=now) for drops in due for e in drops}
        if told:
            _write(paths, _Kept(kept.drops | told, kept.seen))
        return [[replace(e, frames=e.frames - e.told) for e in drops] for drops in due]


def _grown(former: Mapping[str, Mapping[str, int]], reading: Reading) -> Iterator[tuple[Key, int]]:
    """By how much each count of a tap has grown."""
    for promise, count in reading.counts.items():
        before = former.get(str(reading.index), {}).get(promise, 0)
        # Fewer than before: the rules are new.
        more = count - before if count >= before else count
        if more:
            yield (reading.domain, reading.nic, promise), more


def _latest_first(kept: _Kept) -> list[Drops]:
    return sorted(kept.drops.values(), key=lambda each: each.last, reverse=True)


def _read(paths: Paths) -> _Kept:
    try:
        written = json.loads((paths.drops / "counts").read_text())
    except FileNotFoundError:
        return _Kept({}, {})
    drops = [Drops(**each) for each in written["drops"]]
    return _Kept({each.key: each for each in drops}, written["seen"])


def _write(paths: Paths, kept: _Kept) -> None:
    content = {"drops": [asdict(each) for each in kept.drops.values()], "seen": kept.seen}
    files.write_atomically(paths.drops / "counts", json.dumps(content).encode(), 0o600)

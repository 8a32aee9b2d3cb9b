# SPDX-License-Identifier: GPL-2.0-or-later
"""Which running domain uses which file, so that no two domains write to the same file.

A claim lies at its file or device, and a mark of it at each device or file below that: a whole disk
conflicts with its partition, and a loop device with its file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from virtwarden.changes.base import Before, Change, Scope
from virtwarden.errors import Refusal
from virtwarden.paths import Paths
from virtwarden.system import files


@dataclass(frozen=True)
class Claim(Change):
    """A domain uses a file, known by its device and inode, until it stops.

    A block device has its own number and 0, and `below` is what it lies on, each likewise.
    """

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    path: str
    device: int
    number: int
    domain: str
    name: str
    write: bool
    shareable: bool
    below: tuple[tuple[int, int], ...] = ()

    def describe(self) -> str:
        how = "read and write" if self.write else "read only"
        return f"claim {self.path} for {self.name} ({how}{', shared' if self.shareable else ''})"

    def capture(self, paths: Paths) -> Before:
        return {}

    def apply(self, paths: Paths, before: Before) -> None:
        """Raises Refusal where the file is another running domain's."""
        with files.locked(paths.claims):
            others = claims_on(paths, self.device, self.number, self.below)
            refusal = conflict(self, others)
            if refusal is not None:
                raise refusal
            for entry in self._entries(paths):
                entry.parent.mkdir(mode=0o700, exist_ok=True)
                files.write_atomically(entry, json.dumps(asdict(self)).encode(), 0o600)

    def undo(self, paths: Paths, before: Before) -> str:
        with files.locked(paths.claims):
            for entry in self._entries(paths):
                files.discard(entry)
                with suppress(OSError):  # another domain's claim is in it, or it is gone
                    entry.parent.rmdir()
        return ""

    def _entries(self, paths: Paths) -> list[Path]:
        mark = f"{self.domain}@{self.device}-{self.number}"
        marks = [_place(paths, *lower) / mark for lower in self.below]
        return [*marks, _place(paths, self.device, self.number) / self.domain]


def claims_on(
    paths: Paths, device: int, number: int, below: Iterable[tuple[int, int]] = ()
) -> tuple[Claim, ...]:
    """The running domains' claims on one file, on what lies on it, and on what is `below` it."""
    found = _entries_at(paths, device, number)
    for lower in below:
        found += [entry for entry in _entries_at(paths, *lower) if "@" not in entry.name]
    return tuple(claim for claim in map(_read, found) if claim is not None)


def _entries_at(paths: Paths, device: int, number: int) -> list[Path]:
    try:
        entries = sorted(_place(paths, device, number).iterdir())
    except FileNotFoundError:
        return []
    return [entry for entry in entries if entry.name[0] != "."]


def _read(entry: Path) -> Claim | None:
    """A claim; None where its domain has just stopped: who only reviews holds no lock."""
    try:
        values = json.loads(entry.read_text())
    except FileNotFoundError:
        return None
    lower = tuple((device, number) for device, number in values.pop("below", ()))
    return Claim(**values, below=lower)


def conflict(claim: Claim, others: Iterable[Claim]) -> Refusal | None:
    """The refusal if this claim conflicts with those of other domains; None if it does not."""
    for other in others:
        if other.domain == claim.domain or not (claim.write or other.write):
            continue
        if claim.shareable and other.shareable:
            continue
        same = (other.device, other.number) == (claim.device, claim.number)
        what = "it" if same else f"{other.path}, where the same data lies"
        return Refusal(
            f"running domain {other.name} also uses {what}, and"
            f" {'it would be' if claim.write else 'it is'} written to",
            where=claim.path,
            fix=f"virsh shutdown {other.name} first (if it does not run: virt-warden recover"
            f" {other.name}), or give both disks <shareable/> for a cluster file system",
        )
    return None


def _place(paths: Paths, device: int, number: int) -> Path:
    return paths.claims / f"{device}-{number}"

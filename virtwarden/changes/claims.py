# SPDX-License-Identifier: GPL-2.0-or-later
"""Which running domain uses which file, so that no two domains write to the same file."""

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
    """A domain uses a file, known by its device and inode, until it stops."""

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    path: str
    device: int
    number: int
    domain: str
    name: str
    write: bool
    shareable: bool

    def describe(self) -> str:
        how = "read and write" if self.write else "read only"
        return f"claim {self.path} for {self.name} ({how}{', shared' if self.shareable else ''})"

    def capture(self, paths: Paths) -> Before:
        return {}

    def apply(self, paths: Paths, before: Before) -> None:
        """Raises Refusal where the file is another running domain's."""
        with files.locked(paths.claims):
            refusal = conflict(self, claims_on(paths, self.device, self.number))
            if refusal is not None:
                raise refusal
            place = _place(paths, self.device, self.number)
            place.mkdir(mode=0o700, exist_ok=True)
            files.write_atomically(place / self.domain, json.dumps(asdict(self)).encode(), 0o600)

    def undo(self, paths: Paths, before: Before) -> str:
        with files.locked(paths.claims):
            place = _place(paths, self.device, self.number)
            files.discard(place / self.domain)
            with suppress(OSError):  # another domain's claim is in it, or it is gone
                place.rmdir()
        return ""


def claims_on(paths: Paths, device: int, number: int) -> tuple[Claim, ...]:
    """The running domains' claims on one file."""
    try:
        entries = sorted(_place(paths, device, number).iterdir())
    except FileNotFoundError:
        return ()
    return tuple(
        Claim(**json.loads(entry.read_text())) for entry in entries if entry.name[0] != "."
    )


def conflict(claim: Claim, others: Iterable[Claim]) -> Refusal | None:
    """The refusal if this claim conflicts with those of other domains; None if it does not."""
    for other in others:
        if other.domain == claim.domain or not (claim.write or other.write):
            continue
        if claim.shareable and other.shareable:
            continue
        return Refusal(
            f"running domain {other.name} also uses it, and"
            f" {'it would be' if claim.write else 'it is'} written to",
            where=claim.path,
            fix=f"virsh shutdown {other.name} first (if it does not run: virt-warden recover"
            f" {other.name}), or give both disks <shareable/> for a cluster file system",
        )
    return None


def _place(paths: Paths, device: int, number: int) -> Path:
    return paths.claims / f"{device}-{number}"

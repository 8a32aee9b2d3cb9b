# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes to files that several domains use, which no domain's user may own."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from virtwarden.changes.access import drop_acl, former, give, put_back, set_mode
from virtwarden.changes.base import Before, Change, Scope
from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.system import acl, files

# Where libvirt notes whose a file was before it gave it away, and how often it did: while that is
# there, it refuses to give the same file to a second domain's user (qemu.conf, remember_owner).
_REMEMBERED = tuple(
    f"trusted.libvirt.security.{note}" for note in ("dac", "ref_dac", "timestamp_dac")
)


@dataclass(frozen=True)
class LockShared(Change):
    """Give a file to root while any domain uses it; only users in its ACL can open it.

    The first domain records the file's owner, and the last one restores it. The order of the starts
    and of the stops does not matter.
    """

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = True

    path: str
    device: int
    number: int
    domain: str

    def describe(self) -> str:
        return f"give {self.path} to root; only users in its ACL can open it"

    def capture(self, paths: Paths) -> Before:
        with files.held(self.path, self.device, self.number):
            return {}

    def apply(self, paths: Paths, before: Before) -> None:
        with (
            files.locked(paths.shared),
            files.held(self.path, self.device, self.number) as handle,
        ):
            found = os.fstat(handle)
            place, lease = self._lease(paths, found.st_dev, files.boot_id())
            if lease is None:
                lease = {
                    "path": self.path,
                    "number": self.number,
                    "device": self.device,
                    "boot": files.boot_id(),
                    **former(paths, handle),
                    "holders": [],
                }
            first = not lease["holders"]
            lease["holders"] = sorted({*lease["holders"], self.domain})
            _store(place, lease)
            # The owner first: otherwise the former owner could set the mode again in between.
            give(handle, self.path, 0, 0)
            if first:
                drop_acl(handle, lease)
                set_mode(handle, self.path, lease["mode"] & stat.S_IRWXU)
            else:  # the group's bits are the mask of the ACL by now
                set_mode(handle, self.path, stat.S_IMODE(found.st_mode) & ~stat.S_IRWXO)

    def undo(self, paths: Paths, before: Before) -> str:
        with files.locked(paths.shared):
            place, lease = self._lease(paths, self.device)
            if lease is None:
                files.discard(place)
                return ""
            if self.domain not in lease["holders"]:
                return ""
            lease["holders"].remove(self.domain)
            if lease["holders"]:
                _store(place, lease)
                return ""
            report = _give_back(lease)
            files.discard(place)
            return report

    def before(self, paths: Paths) -> tuple[int, int] | None:
        """The file's owner and mode before the first domain locked it, while any has it locked."""
        _, lease = self._lease(paths, self.device, files.boot_id())
        return (lease["uid"], lease["mode"]) if lease and lease["holders"] else None

    def _lease(
        self, paths: Paths, device: int, boot: str = ""
    ) -> tuple[Path, dict[str, Any] | None]:
        """Where the lease of this file is, or will be, and what it says.

        It is of one inode: a base that replaces another one under its name has its own lease, and
        a base that is mounted twice has one. Each boot gives out device numbers again: a lease of
        another `boot` is of this file where it has the same path.
        """
        # virt-warden 0.1.0 named a lease by the path alone.
        former = paths.shared / f"{_digest(self.path)}.json"
        for place in [former, *sorted(paths.shared.glob(f"[!.]*-{self.number}-*.json"))]:
            lease = _load(place)
            if lease is None or lease["number"] != self.number:
                continue
            if lease["device"] == device and boot in ("", lease["boot"]):
                return place, lease
            if lease["path"] == self.path and boot != lease["boot"]:
                return place, lease
        name = f"{self.device}-{self.number}-{_digest(self.path)}.json"
        return paths.shared / name, None


def before_lock(paths: Paths, path: str, device: int, number: int) -> tuple[int, int] | None:
    """The owner and the mode that a file has again later; None where no domain has it locked."""
    return LockShared(path, device, number, domain="").before(paths)


@dataclass(frozen=True)
class TakeBack(Change):
    """Give a shared file back to root after libvirt gave it to the domain's user at the start.

    libvirt does that with kernels, initrds, device trees, ACPI tables and files for fw_cfg, because
    their XML cannot name a label.
    """

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    path: str
    device: int
    number: int

    def describe(self) -> str:
        return f"give {self.path} back to root once libvirt has started the domain"

    def capture(self, paths: Paths) -> Before:
        return {}

    def apply(self, paths: Paths, before: Before) -> None:
        with files.locked(paths.shared), files.held(self.path, self.device, self.number) as handle:
            give(handle, self.path, 0, 0)
            # While it was theirs, the user could let others write it.
            acl.deny_writing(handle)
            for attribute in _REMEMBERED:
                with suppress(OSError):  # libvirt was told not to remember, or cannot here
                    os.removexattr(files.by_descriptor(handle), attribute)

    def undo(self, paths: Paths, before: Before) -> str:
        """LockShared has what it was like before all."""
        return ""


def _digest(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()[:32]


def _load(place: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(place.read_text()))
    except FileNotFoundError:
        return None


def _store(place: Path, lease: dict[str, Any]) -> None:
    files.write_atomically(place, json.dumps(lease).encode(), 0o600, durable=True)


def _give_back(lease: dict[str, Any]) -> str:
    path = lease["path"]
    try:
        with files.held(path, lease["device"], lease["number"], lease["boot"]) as handle:
            return _put_back(handle, lease)
    except HostError as gone:
        return f"{gone.what}: its owner and mode are not changed"


def _put_back(handle: int, lease: dict[str, Any]) -> str:
    try:
        put_back(handle, lease["path"], lease)
    except (HostError, OSError) as error:
        return f"{lease['path']} has not all of its former owner, mode and ACL: {error}"
    return ""

# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes that open a disk's LUKS container while its domain runs."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from virtwarden.changes.access import user_named
from virtwarden.changes.base import Before, Change, Scope
from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.system import blockstack, cryptsetup, files, keys, mapper
from virtwarden.system.run import run

_UDEVADM = "/usr/bin/udevadm"
_OWNER_ALONE = 0o600


@dataclass(frozen=True)
class NodeRule(Change):
    """Write a udev rule for the device of one container before it is opened.

    udev sets owner, group and mode of a device at each event (udev(7)), so a chown alone would not
    last. Its other rules would read what the guest wrote: they would make links from its labels and
    activate its volume groups, and the container could not be closed.
    """

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    mapper: str
    user: str

    def describe(self) -> str:
        return (
            f"udev rule: /dev/mapper/{self.mapper} belongs to {self.user or 'root'}, and udev does"
            " not read it"
        )

    def capture(self, paths: Paths) -> Before:
        return {"uid": user_named(self.user).uid if self.user else 0}

    def apply(self, paths: Paths, before: Before) -> None:
        if not paths.udev_rules.parent.is_dir():
            return  # a host without udev: the device mapper's own library makes the nodes
        paths.udev_rules.mkdir(mode=0o755, exist_ok=True)
        files.write_atomically(self._file(paths), self._rule(before["uid"]).encode(), 0o644)
        if (paths.udev_rules.parent / "control").exists():
            run(_UDEVADM, "control", "--reload")

    def undo(self, paths: Paths, before: Before) -> str:
        """udev sees by itself that a rule is gone; this one is of nothing by now."""
        files.discard(self._file(paths))
        return ""

    def _file(self, paths: Paths) -> Path:
        # After 55-dm.rules, which names the device, and before all that would look into it.
        return paths.udev_rules / f"56-{self.mapper}.rules"

    def _rule(self, uid: int) -> str:
        ours = f'OWNER:="{uid}", GROUP:="{uid}", MODE:="{_OWNER_ALONE:04o}", OPTIONS:="nowatch"'
        unread = "".join(
            f', ENV{{{flag}}}="1"'
            for flag in (
                "DM_UDEV_DISABLE_DISK_RULES_FLAG",
                "DM_UDEV_DISABLE_OTHER_RULES_FLAG",
                "UDISKS_IGNORE",
            )
        )
        return f'SUBSYSTEM=="block", ENV{{DM_NAME}}=="{self.mapper}", {ours}{unread}\n'


@dataclass(frozen=True)
class OpenLuks(Change):
    """Open a LUKS container as /dev/mapper/NAME, which only one user may open.

    `device` and `number` identify the container among all files and block devices.
    """

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    container: str
    device: int
    number: int
    mapper: str
    key_kind: str
    key_value: str | int
    purpose: str
    user: str
    readonly: bool
    discard: bool

    @property
    def place(self) -> keys.Place:
        """Where the container's key is."""
        return keys.Place(self.key_kind, self.key_value, self.container, self.purpose)

    def describe(self) -> str:
        how = "read only" if self.readonly else "with discards" if self.discard else "no discards"
        return (
            f"open {self.container} as /dev/mapper/{self.mapper} ({how}; {self.place}), only"
            f" for {self.user or 'root'}"
        )

    def capture(self, paths: Paths) -> Before:
        with files.held(self.container, self.device, self.number) as handle:
            found = os.fstat(handle)
        return {
            "existed": mapper.find(paths.block_devices, self.mapper) is not None,
            "lies_on": list(blockstack.identity_of(found)),
            "boot": files.boot_id(),
            "at": int(time.time()),
        }

    def apply(self, paths: Paths, before: Before) -> None:
        """Raises HostError where the key cannot be got or does not open it."""
        if before["existed"]:
            raise HostError(
                f"/dev/mapper/{self.mapper} is already open",
                fix=f"see what it is: cryptsetup status {self.mapper}",
            )
        owner = user_named(self.user) if self.user else None
        key = keys.fetch(self.place)
        with (
            files.locked(self._lock(paths)) as lock,
            files.held(self.container, self.device, self.number),
        ):
            cryptsetup.open_container(
                self.container,
                self.mapper,
                key,
                readonly=self.readonly,
                discard=self.discard,
                inherited=[lock],
            )
        self._give(paths, (owner.uid, owner.gid) if owner else (0, 0))

    def _give(self, paths: Paths, owner: tuple[int, int]) -> None:
        opened = mapper.find(paths.block_devices, self.mapper)
        node = files.look(str(mapper.NODES / self.mapper)).leaf
        if opened is None or node is None or blockstack.identity(node) != (opened.number, 0):
            raise HostError(
                f"/dev/mapper/{self.mapper} is not there, though cryptsetup opened it",
                fix="see whether udev works: systemctl status systemd-udevd",
            )
        with files.held(node.path, *node.identity) as handle:
            os.chown(files.by_descriptor(handle), *owner)
            files.by_descriptor(handle).chmod(_OWNER_ALONE)

    def undo(self, paths: Paths, before: Before) -> str:
        """Raises HostError where it does not close."""
        if before["existed"] or before["boot"] != files.boot_id():
            return ""
        # A cryptsetup that a killed hook left behind holds the lock until it has ended.
        with files.locked(self._lock(paths)):
            found = mapper.find(paths.block_devices, self.mapper)
            ours = found is not None and tuple(before["lies_on"]) in found.below
            report = ""
            if ours:
                report = cryptsetup.close(self.mapper)
                _note_closed(paths, self.mapper)
            self._lock(paths).rmdir()
        if found is not None and not ours:
            return f"{found.node} is now another container: left open"
        return report

    def is_open(self, paths: Paths) -> bool:
        """Whether there is a map of this name."""
        return mapper.find(paths.block_devices, self.mapper) is not None

    def _lock(self, paths: Paths) -> Path:
        return paths.run / "luks" / self.mapper


def closed_at(paths: Paths, name: str) -> int | None:
    """When virt-warden last closed this container, in seconds since 1970; None if never."""
    try:
        return int((paths.luks / name).read_text())
    except (FileNotFoundError, ValueError):
        return None


def _note_closed(paths: Paths, name: str) -> None:
    files.private_directory(paths.luks)
    files.write_atomically(paths.luks / name, str(int(time.time())).encode(), 0o600)

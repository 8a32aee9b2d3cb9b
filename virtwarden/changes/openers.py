# SPDX-License-Identifier: GPL-2.0-or-later
"""A look at who else has a file open, once it is given to whom it belongs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from virtwarden.changes.base import Before, Change, Scope
from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.system import blockstack, files
from virtwarden.system.openers import Opener, Use, openers, others_use
from virtwarden.words import shown

# It writes a serial port's log for libvirt, which has it open the file before QEMU runs.
_LOGGER = "virtlogd"
_DAEMONS = ("libvirtd", "virtstoraged", "virtqemud")


@dataclass(frozen=True)
class RequireUnopened(Change):
    """Alter nothing; fail where somebody has a file open who could then write or read it.

    chown(2) takes no descriptor back. So this comes after the file was given away: who opens it
    later needs the rights that it has now. A process of root's may read it, as a backup does. With
    `reading`, nobody else may read it either.
    """

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    path: str
    device: int
    number: int
    reading: bool

    def describe(self) -> str:
        what = "read or write" if self.reading else "write"
        return f"see that no process has {self.path} open that could {what} it"

    def capture(self, paths: Paths) -> Before:
        return {}

    def apply(self, paths: Paths, before: Before) -> None:
        """Raises HostError where somebody has it open."""
        with files.held(self.path, self.device, self.number) as handle:
            use = others_use(handle)
            if use is Use.NONE or (use is Use.READING and not self.reading):
                return
            shown_by_proc = openers(handle)
            strangers = [opener for opener in shown_by_proc if self._is_strange(opener, use)]
            if strangers or _is_hidden(handle, use, shown_by_proc):
                raise self._error(strangers)

    def undo(self, paths: Paths, before: Before) -> str:
        return ""

    def _is_strange(self, opener: Opener, use: Use) -> bool:
        if opener.uid == 0 and opener.program == _LOGGER:
            return False
        if opener.uid == 0:
            return use is Use.WRITING and opener.writes
        return opener.writes or self.reading

    def _error(self, strangers: Sequence[Opener]) -> HostError:
        who = ", ".join(map(_shown, strangers)) or "no process shows it"
        pids = " ".join(str(opener.pid) for opener in strangers)
        path = shown(self.path)
        if strangers and all(map(_is_libvirts, strangers)):
            # It has the file open for a program, and closes it when that program ends.
            fix = "let the program end that uploads it, such as vagrant up, then start it again; or"
            return HostError(
                f"libvirt itself has {self.path} open ({who})",
                fix=f"{fix} systemctl restart libvirtd, under which VMs keep running",
            )
        return HostError(
            f"somebody else has {self.path} open, and would keep it ({who})",
            fix=f"kill {pids}; then start it again"
            if pids
            else f"fuser -v {path} may show who; or put a copy in its place: cp --sparse=always"
            f" {path} {shown(f'{self.path}.new')}, then mv {shown(f'{self.path}.new')} {path}",
        )


def _is_hidden(handle: int, use: Use, shown_by_proc: Sequence[Opener]) -> bool:
    """Whether the kernel says that somebody has a file open, and nothing shows who.

    A loop device over it is root's, and what uses that is reviewed.
    """
    if use is Use.UNKNOWN or any(opener.writes or use < Use.WRITING for opener in shown_by_proc):
        return False
    return not blockstack.loops_over(blockstack.identity_of(os.fstat(handle)))


def _is_libvirts(opener: Opener) -> bool:
    return opener.uid == 0 and opener.program in _DAEMONS


def _shown(opener: Opener) -> str:
    return f"pid {opener.pid}, uid {opener.uid}, {opener.program}"

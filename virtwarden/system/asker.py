# SPDX-License-Identifier: GPL-2.0-or-later
"""A process at the other end of a Unix socket: who it is, and that nobody else steers it."""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from virtwarden.system import namespaces

_UCRED = struct.Struct("=iII")
# What AppArmor calls a domain's process, before its mode in parentheses.
_OF_A_DOMAIN = "libvirt-"


@dataclass(frozen=True)
class Asker:
    """A process that connected; `handle` is a pidfd, so that no other process is taken for it."""

    pid: int
    uid: int
    handle: int

    def lives(self) -> bool:
        """Whether it has not ended, so that its pid has been its own until now."""
        poller = select.poll()
        poller.register(self.handle, select.POLLIN)
        return not poller.poll(0)


@contextmanager
def asker(connection: socket.socket) -> Iterator[Asker]:
    """The process that connected (unix(7), SO_PEERCRED). Raises OSError where it is gone."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _ = _UCRED.unpack(found)
    handle = os.pidfd_open(pid)
    try:
        yield Asker(pid, uid, handle)
    finally:
        os.close(handle)


def objection(asked: Asker, uuid: str) -> str:
    """Why this process cannot be the wrapper of a starting domain; empty if it can.

    libvirt's own user runs it, it has made a user namespace with nobody in it, nobody traces it and
    nobody can any more (prctl(2), PR_SET_DUMPABLE). If AppArmor confines it as a domain, it is as
    this one. Raises OSError where it is gone.
    """
    directory = Path(f"/proc/{asked.pid}")
    status = _status(directory)
    checks = (
        (status["Uid"].split() == [str(asked.uid)] * 4 and asked.uid != 0, "its user is another"),
        (status["Threads"].strip() == "1", "it has several threads"),
        (_is_undumpable(directory), "other processes of its user could steer it"),
        (status["TracerPid"].strip() == "0", "another process traces it"),
        (namespaces.made_by(asked.pid) == asked.uid, "it has no user namespace of its own"),
        (namespaces.is_unmapped(asked.pid), "somebody is mapped into its user namespace"),
        (_label(directory) in ("", f"{_OF_A_DOMAIN}{uuid}"), "AppArmor knows it as another domain"),
    )
    return next((what for holds, what in checks if not holds), "")


def _status(directory: Path) -> dict[str, str]:
    lines = (directory / "status").read_bytes().decode(errors="replace").split("\n")
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _is_undumpable(directory: Path) -> bool:
    """Then what is below /proc/PID belongs to root; proc(5)."""
    return (directory / "fd").stat().st_uid == 0


def _label(directory: Path) -> str:
    """The AppArmor profile of a domain by which a process is confined; empty where none does."""
    with suppress(OSError):
        label = (directory / "attr/current").read_text().strip("\0\n").partition(" ")[0]
        return label if label.startswith(_OF_A_DOMAIN) else ""
    return ""

# SPDX-License-Identifier: GPL-2.0-or-later
"""A process of a user without rights that was handed an open file by another user's process."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.host.namespace import require_private_host

NOBODY = 65534
_READ_BYTES = 4


class Accomplice:
    """The process, which does what it is told with the file that it was handed."""

    def __init__(self, pid: int, orders: socket.socket) -> None:
        self.pid = pid
        self._orders = orders

    def writes(self, content: bytes) -> None:
        """Have it write to the file's beginning, and wait until that is done."""
        self._orders.send(b"w" + content)
        assert self._orders.recv(64) == b"done"

    def reads(self) -> bytes:
        """What it reads at the file's beginning, or how that fails."""
        self._orders.send(b"r")
        return self._orders.recv(64)


@contextmanager
def handed(
    file: Path,
    opener: int,
    flags: int = os.O_RDWR,
    holder: int = NOBODY,
    *,
    parked: bool = False,
) -> Iterator[Accomplice]:
    """A process of uid `holder` that has a file open, which uid `opener` opened.

    One that is `parked` lies in a socket of that process, which has not taken it out.
    """
    require_private_host()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = _forked(holder, theirs, _keep if parked else _obey)
    theirs.close()
    try:
        _hand_on(file, opener, flags, ours)
        assert parked or ours.recv(64) == b"here"
        yield Accomplice(pid, ours)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        ours.close()


def _hand_on(file: Path, opener: int, flags: int, to: socket.socket) -> None:
    def act(connection: socket.socket) -> None:
        socket.send_fds(connection, [b"x"], [os.open(file, flags)])

    _, status = os.waitpid(_forked(opener, to, act), 0)
    assert status == 0, f"uid {opener} cannot open {file}"


def _keep(_connection: socket.socket) -> None:
    signal.pause()


def _obey(connection: socket.socket) -> None:
    _, (file,), _, _ = socket.recv_fds(connection, 1, 1)
    connection.send(b"here")
    while order := connection.recv(64):
        try:
            if order[:1] == b"w":
                os.pwrite(file, order[1:], 0)
                connection.send(b"done")
            else:
                connection.send(os.pread(file, _READ_BYTES, 0))
        except OSError as error:
            connection.send(type(error).__name__.encode() + str(error.errno).encode())


def _forked(uid: int, connection: socket.socket, act: Callable[[socket.socket], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        act(connection)
        os._exit(0)
    finally:
        os._exit(1)

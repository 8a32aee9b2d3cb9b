# SPDX-License-Identifier: GPL-2.0-or-later
"""The processes that answer the hook's calls, one call at a time each.

Calls come at the same time, and one may wait long, so each has a process to itself. A process that
is done takes the next call. A new fork for each call would need as much time again, to touch for
the first time all the memory that it shares with its parent.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from virtwarden import log

_CALL, _DONE = b"c", b"d"
# Many starts at once need more workers, which end when the starts are over. They do not end at
# once: a start calls three times, and a worker that one call no longer needs serves another.
_IDLE_AT_MOST = 4
_SURPLUS_SECONDS = 30
# A worker ends after this many calls, and with it whatever the calls left in its memory.
_CALLS_OF_ONE = 200


def fork(act: Callable[[], object], not_its: list[socket.socket]) -> int:
    """Run a function in its own process, which closes these sockets; gives its pid."""
    child = os.fork()
    if child == 0:
        _run_and_exit(act, not_its)
    return child


def _run_and_exit(act: Callable[[], object], not_its: list[socket.socket]) -> NoReturn:
    code = 1
    try:
        # A signal to the child must not reach the parent. The child ignores SIGTERM and goes on.
        signal.set_wakeup_fd(-1)
        for kept in not_its:
            kept.close()
        act()
        code = 0
    except Exception as error:  # noqa: BLE001 - there is nobody else to catch it
        log.event(log.Level.ERROR, "failed", reason=repr(error))
    finally:
        os._exit(code)


class Workers:
    """Processes that serve connections. Our end of the channel to a process stands for it."""

    def __init__(
        self, serve: Callable[[socket.socket], object], not_theirs: list[socket.socket]
    ) -> None:
        self._serve = serve
        self._not_theirs = not_theirs
        self._idle: dict[socket.socket, float] = {}
        """Since when each has been idle; the last one is the next that gets a call."""
        self.busy: list[socket.socket] = []
        """Channels that can be read when their worker is done, or dead."""

    def give(self, connection: socket.socket) -> None:
        """Have a worker serve a connection. Raises OSError where no process can be made for it."""
        while self._idle:
            channel, _ = self._idle.popitem()
            if self._hand_over(channel, connection):
                return
        self._hand_over(self._made(connection), connection)

    def take_back(self, channel: socket.socket) -> None:
        """Read a worker's channel: make the worker idle if it is done, drop it if it is dead."""
        self.busy.remove(channel)
        said = b""
        with suppress(OSError):
            said = channel.recv(1)
        if said == _DONE:
            self._idle[channel] = time.monotonic()
        else:
            channel.close()

    def end_surplus(self) -> float | None:
        """End the workers that have been idle for long.

        Gives the seconds until the next may end, or None where none is left over.
        """
        due = time.monotonic() - _SURPLUS_SECONDS
        while len(self._idle) > _IDLE_AT_MOST:
            channel, since = next(iter(self._idle.items()))
            if since > due:
                return since - due
            del self._idle[channel]
            channel.close()
        return None

    def dismiss(self) -> None:
        """Have each worker end when it is done with its call."""
        for channel in (*self._idle, *self.busy):
            channel.close()

    def _hand_over(self, channel: socket.socket, connection: socket.socket) -> bool:
        try:
            socket.send_fds(channel, [_CALL], [connection.fileno()])
        except OSError:  # the worker died meanwhile
            channel.close()
            return False
        self.busy.append(channel)
        return True

    def _made(self, connection: socket.socket) -> socket.socket:
        ours, its = socket.socketpair()
        with its:
            not_its = [*self._not_theirs, *self._idle, *self.busy, ours, connection]
            fork(lambda: self._work(its), not_its)
        return ours

    def _work(self, channel: socket.socket) -> None:
        with suppress(OSError):  # the service has ended
            for more in reversed(range(_CALLS_OF_ONE)):
                _, handles, _, _ = socket.recv_fds(channel, 1, 1, socket.MSG_CMSG_CLOEXEC)
                if not handles:
                    return
                with socket.socket(fileno=handles[0]) as connection:
                    self._serve(connection)
                if more:
                    channel.sendall(_DONE)

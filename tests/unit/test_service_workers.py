# SPDX-License-Identifier: GPL-2.0-or-later
"""No two calls share a process at a time, and none is lost with a process that dies."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from virtwarden.service import workers
from virtwarden.service.workers import Workers

pytestmark = pytest.mark.process


def serve(connection: socket.socket) -> None:
    """Say who answers, and be at it until told that it is enough."""
    connection.sendall(str(os.getpid()).encode())
    connection.recv(1)


@pytest.fixture
def made() -> Iterator[Workers]:
    made = Workers(serve, [])
    yield made
    made.dismiss()
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


def call(made: Workers) -> tuple[socket.socket, int]:
    """Have a call answered; its connection, and the pid of the process that is at it."""
    ours, theirs = socket.socketpair()
    with theirs:
        made.give(theirs)
    return ours, int(ours.recv(20) or 0)


def enough(connection: socket.socket) -> None:
    # Not closed alone: the process that is at it was forked with our end, as no hook's is.
    connection.sendall(b".")
    connection.close()


def end(made: Workers, connection: socket.socket, channel: socket.socket) -> None:
    enough(connection)
    made.take_back(channel)


def test_a_process_that_is_done_takes_the_next_call(made: Workers) -> None:
    first, one = call(made)
    end(made, first, made.busy[0])
    second, other = call(made)
    assert one == other != os.getpid()
    enough(second)


def test_calls_at_the_same_time_have_a_process_each(made: Workers) -> None:
    calls = [call(made) for _ in range(10)]
    assert len({pid for _, pid in calls}) == 10
    for (connection, _), channel in zip(calls, made.busy.copy(), strict=True):
        end(made, connection, channel)
    assert made.busy == []


def test_a_process_that_died_while_it_was_idle_loses_no_call(made: Workers) -> None:
    first, pid = call(made)
    end(made, first, made.busy[0])
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    second, other = call(made)
    assert other != pid
    enough(second)


def test_a_process_that_dies_hangs_up_on_its_call_alone(made: Workers) -> None:
    (first, dying), (second, living) = call(made), call(made)
    os.kill(dying, signal.SIGKILL)
    assert first.recv(1) == b""
    first.close()
    made.take_back(made.busy[0])
    end(made, second, made.busy[0])
    third, pid = call(made)
    assert pid == living
    enough(third)


def fail(_connection: socket.socket) -> None:
    raise RuntimeError("a bug")


def test_a_process_whose_call_went_wrong_takes_no_other() -> None:
    made = Workers(fail, [])
    first, _ = call(made)
    assert first.recv(1) == b""
    first.close()
    made.take_back(made.busy[0])
    assert made.busy == []
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 1


def test_after_many_calls_a_process_makes_room_for_a_new_one(
    made: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_CALLS_OF_ONE", 2)
    pids = []
    for _ in range(5):
        connection, pid = call(made)
        pids.append(pid)
        end(made, connection, made.busy[0])
    assert len(set(pids)) == 3


def test_what_many_calls_at_once_needed_serves_the_next_and_ends_when_it_is_long_idle(
    made: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def many(calls: int) -> set[int]:
        given = [call(made) for _ in range(calls)]
        for (connection, _), channel in zip(given, made.busy.copy(), strict=True):
            end(made, connection, channel)
        return {pid for _, pid in given}

    assert made.end_surplus() is None
    pids = many(10)
    assert many(10) == pids
    seconds = made.end_surplus()
    assert seconds is not None
    assert 0 < seconds <= workers._SURPLUS_SECONDS

    monkeypatch.setattr(workers, "_SURPLUS_SECONDS", 0)
    assert made.end_surplus() is None
    ended = {os.waitpid(-1, 0)[0] for _ in range(10 - workers._IDLE_AT_MOST)}
    assert many(workers._IDLE_AT_MOST) == pids - ended


def test_what_is_at_work_when_the_service_ends_ends_its_work(made: Workers) -> None:
    connection, pid = call(made)
    idle, other = call(made)
    end(made, idle, made.busy[1])
    made.dismiss()
    assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == 0
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    enough(connection)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_no_process_holds_what_is_not_its(made: Workers) -> None:
    """Or a hook would not hear that the process which answers it has died."""

    def sockets(pid: int) -> int:
        return sum(path.is_socket() for path in Path(f"/proc/{pid}/fd").iterdir())

    before = sockets(os.getpid())
    calls = [call(made) for _ in range(3)]
    # Its call and its channel, beside what this process had: our ends of the calls so far.
    assert [sockets(pid) - before for _, pid in calls] == [2 + 1, 2 + 2, 2 + 3]
    for connection, _ in calls:
        enough(connection)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The service's first process: it accepts calls of the hook, and looks after its children."""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from systemd.daemon import listen_fds, notify

from virtwarden import log
from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.policy import load
from virtwarden.service import adopter, wire
from virtwarden.service.answer import answer
from virtwarden.service.turns import Turns
from virtwarden.service.warm import warm_up
from virtwarden.service.watchdog import Watchdog
from virtwarden.service.workers import Workers, fork
from virtwarden.system import files

_ROOT_ONLY, _EVERYBODY = 0o177, 0o111
_BACKLOG = 512
# What a host of a thousand domains needs for their review, many times over.
_REVIEW_SECONDS = 3600
_HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


def run(paths: Paths) -> int:
    """Serve until SIGTERM or SIGINT, and finish the calls that are being answered.

    Gives 0 then, and 1 where the process that listens to libvirt died. Raises HostError where
    another service already runs.
    """
    _review_if_due(paths)
    _enrol_at_rest(paths)
    warm_up(paths)
    gc.freeze()  # all objects so far stay, and every fork shares them
    with _hearing_signals() as signals:
        with _listening(paths.hook_socket) as hooks, _listening_to_wrappers(paths) as wrappers:
            beats, beater = socket.socketpair()
            ours = [hooks, wrappers, signals, beats]
            with _held_back(signal.SIGTERM), beater:
                watching = fork(lambda: _watch(paths, beater), ours)
            workers = Workers(partial(_answer, paths=paths, turns=Turns(paths)), ours)
            notify("READY=1")
            accepts = {
                hooks: partial(_accept_hook, workers=workers),
                wrappers: partial(_accept_wrapper, paths=paths, workers=workers),
            }
            code = _serve(accepts, signals, workers, watching, beats)
        notify("STOPPING=1")
        workers.dismiss()
        if code == 0:
            os.kill(watching, signal.SIGTERM)
        _await_children()
    return code


def _review_if_due(paths: Paths) -> None:
    """Where installation could not review the domains: do it before libvirtd starts any of them."""
    if not paths.review_due.exists():
        return
    from virtwarden.package.found import review_if_due  # which no hook needs

    notify(f"EXTEND_TIMEOUT_USEC={_REVIEW_SECONDS * 1_000_000}")

    def warn(line: str) -> None:
        log.event(log.Level.ERROR, "failed", reason=line)

    try:
        review_if_due(paths, lambda _: None, warn)
    except Exception as error:  # noqa: BLE001 - the service serves all the same
        warn(repr(error))


def _enrol_at_rest(paths: Paths) -> None:
    """Enrol in libvirt's files before libvirtd reads them, and starts what starts with the host."""
    from virtwarden.package.offline import enrol_files  # which no hook needs

    try:
        enrol_files(paths, load(paths, store=True))
    except Exception as error:  # noqa: BLE001 - the service serves all the same
        log.event(log.Level.ERROR, "failed", reason=error)


@contextmanager
def _hearing_signals() -> Iterator[socket.socket]:
    """A socket that gives the number of each signal that arrives, one byte each."""
    ours, pythons = socket.socketpair()
    pythons.setblocking(False)
    former = signal.set_wakeup_fd(pythons.fileno())
    handlers = {number: signal.signal(number, lambda *_: None) for number in _HEARD}
    try:
        yield ours
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(former)
        ours.close()
        pythons.close()


def _answer(connection: socket.socket, paths: Paths, turns: Turns) -> None:
    """Answer a hook or a wrapper, by the socket to which it came."""
    if connection.getsockname() == str(paths.adopt_socket):
        adopter.answer(connection, paths)
    else:
        answer(connection, paths, turns)


@contextmanager
def _listening_to_wrappers(paths: Paths) -> Iterator[socket.socket]:
    """The socket at which wrappers ask for their user: systemd's, which also starts the service."""
    handed = listen_fds()
    if handed:
        with socket.socket(fileno=handed[0]) as listener:
            listener.setblocking(False)
            yield listener
    else:
        with _listening(paths.adopt_socket, _EVERYBODY) as listener:
            yield listener


@contextmanager
def _listening(path: Path, mask: int = _ROOT_ONLY) -> Iterator[socket.socket]:
    files.passable_directory(path.parent)
    if _is_served(path):
        raise HostError(f"another service listens at {path}", fix="systemctl status virt-warden")
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.setblocking(False)
        former = os.umask(mask)
        try:
            listener.bind(str(path))
        finally:
            os.umask(former)
        listener.listen(_BACKLOG)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as visitor:
        return visitor.connect_ex(str(path)) == 0


@contextmanager
def _held_back(number: signal.Signals) -> Iterator[None]:
    """A signal waits, and in a child too, until the child is ready for it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})


def _watch(paths: Paths, beater: socket.socket) -> None:
    # The handler that is inherited ignores it, and importing libvirt takes its time.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    from virtwarden.service import watcher  # it imports libvirt, which no hook needs

    beater.setblocking(False)

    def beat() -> None:
        with suppress(OSError):  # it has not read the last ones yet
            beater.send(b".")

    watcher.watch(paths, beat)


def _serve(
    accepts: Mapping[socket.socket, Callable[[socket.socket], None]],
    signals: socket.socket,
    workers: Workers,
    watching: int,
    beats: socket.socket,
) -> int:
    watchdog = Watchdog(os.environ, time.monotonic())
    while True:
        seconds = _sooner(workers.end_surplus(), watchdog.wait(time.monotonic()))
        ready = _readable([*accepts, signals, beats, *workers.busy], seconds)
        _tell_systemd(watchdog, beats if beats in ready else None)
        if signals in ready:
            came = signals.recv(4096)
            if watching in _reap():
                log.event(log.Level.ERROR, "failed", reason="what listens to libvirt died")
                return 1
            if signal.SIGTERM in came or signal.SIGINT in came:
                return 0
        for channel in workers.busy.copy():
            if channel in ready:
                workers.take_back(channel)
        for listener, accept in accepts.items():
            if listener in ready:
                accept(listener)


def _sooner(first: float | None, second: float | None) -> float | None:
    return min((each for each in (first, second) if each is not None), default=None)


def _tell_systemd(watchdog: Watchdog, beats: socket.socket | None) -> None:
    if beats is not None and beats.recv(4096):
        watchdog.beat(time.monotonic())
    if watchdog.is_to_tell(time.monotonic()):
        notify("WATCHDOG=1")


def _readable(sockets: list[socket.socket], seconds: float | None) -> set[socket.socket]:
    """The sockets that can be read, after waiting for one, or for this many seconds.

    It uses poll(2): select(2) takes no descriptor above 1023.
    """
    poller = select.poll()
    for one in sockets:
        poller.register(one, select.POLLIN)
    ready = {handle for handle, _ in poller.poll(None if seconds is None else seconds * 1000)}
    return {one for one in sockets if one.fileno() in ready}


def _accept_hook(listener: socket.socket, workers: Workers) -> None:
    """Have a worker answer one call. Where none can, hang up: the hook then does it itself."""
    with _accepted(listener) as connection:
        if connection is None:
            return
        uid = wire.peer_uid(connection)
        if uid != 0:
            log.event(log.Level.WARNING, "stranger", uid=uid)
            return
        _give(connection, workers)


def _accept_wrapper(listener: socket.socket, paths: Paths, workers: Workers) -> None:
    """Have a worker answer a wrapper for which a start waits, and nobody else."""
    with _accepted(listener) as connection:
        if connection is not None and adopter.is_awaited(paths, connection):
            _give(connection, workers)


@contextmanager
def _accepted(listener: socket.socket) -> Iterator[socket.socket | None]:
    """The next connection; None where whoever called hung up before its turn came."""
    try:
        connection, _ = listener.accept()
    except OSError:
        yield None
        return
    with connection:
        yield connection


def _give(connection: socket.socket, workers: Workers) -> None:
    try:
        workers.give(connection)
    except OSError as error:
        log.event(log.Level.WARNING, "busy", reason=error)


def _reap() -> set[int]:
    """The pids of the children that have ended."""
    ended: set[int] = set()
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.add(pid)


def _await_children() -> None:
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return

"""The service's first process: accepts calls of the hook, and sees to the others."""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from virtwarden import log, wire
from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.service.answer import answer
from virtwarden.service.notify import notify
from virtwarden.service.warm import warm_up
from virtwarden.system import files

_ROOT_ONLY = 0o177
_BACKLOG = 512
_HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


def run(paths: Paths) -> int:
    """Serve until SIGTERM or SIGINT; what is being answered is answered to its end.

    Gives 0 then, and 1 where the process that listens to libvirt died. Raises HostError where
    another service runs already.
    """
    warm_up(paths)
    gc.freeze()  # what is there by now stays, and is shared with every fork
    with _hearing_signals() as signals:
        with _listening(paths.hook_socket) as listener:
            watching = _fork(lambda: _watch(paths), [listener, signals])
            notify("READY=1")
            code = _serve(paths, listener, signals, watching)
        notify("STOPPING=1")
        os.kill(watching, signal.SIGTERM)
        _await_children()
    return code


@contextmanager
def _hearing_signals() -> Iterator[socket.socket]:
    """A socket from which the numbers of the signals that come can be read, a byte each."""
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


@contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    files.passable_directory(path.parent)
    if _is_served(path):
        raise HostError(f"another service listens at {path}", fix="systemctl status virt-warden")
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.setblocking(False)
        former = os.umask(_ROOT_ONLY)
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


def _watch(paths: Paths) -> None:
    from virtwarden.service import watcher  # and with it libvirt, which no hook comes near

    watcher.watch(paths)


def _serve(paths: Paths, listener: socket.socket, signals: socket.socket, watching: int) -> int:
    while True:
        ready, _, _ = select.select([listener, signals], [], [])
        if signals in ready:
            came = signals.recv(4096)
            if watching in _reap():
                log.event(log.Level.ERROR, "failed", reason="what listens to libvirt died")
                return 1
            if signal.SIGTERM in came or signal.SIGINT in came:
                return 0
        if listener in ready:
            _accept(paths, listener, signals)


def _accept(paths: Paths, listener: socket.socket, signals: socket.socket) -> None:
    """Have one call answered by a process of its own.

    Calls come at the same time, and what one leaves behind in its process must not be there for
    the next: a fork of a process that has all imported takes a millisecond. Where that fails, the
    hook is hung up on, and does its work by itself.
    """
    try:
        connection, _ = listener.accept()
    except OSError:
        return  # it hung up before it was its turn
    with connection:
        uid = wire.peer_uid(connection)
        if uid != 0:
            log.event(log.Level.WARNING, "stranger", uid=uid, at=paths.hook_socket)
            return
        try:
            _fork(lambda: answer(connection, paths), [listener, signals])
        except OSError as error:
            log.event(log.Level.WARNING, "busy", reason=error)


def _fork(act: Callable[[], object], not_its: list[socket.socket]) -> int:
    """Run a function in a process of its own; gives its pid."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        # A signal to the child is not one to us. It lets SIGTERM pass and does what it is at.
        signal.set_wakeup_fd(-1)
        for kept in not_its:
            kept.close()
        act()
        code = 0
    except Exception as error:  # noqa: BLE001 - there is nobody else to catch it
        log.event(log.Level.ERROR, "failed", reason=repr(error))
    finally:
        os._exit(code)


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

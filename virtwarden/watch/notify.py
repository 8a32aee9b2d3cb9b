# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the admin's programs in notify.d for each event that is a warning or worse.

Whoever logs such an event sends it here too (virtwarden.log). The programs run one after the other,
as root, without a shell; what an event says is in their environment alone.
"""

from __future__ import annotations

import json
import os
import queue
import re
import socket
import stat
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from virtwarden import log
from virtwarden.errors import WardenError
from virtwarden.paths import Paths
from virtwarden.policy import trust
from virtwarden.system import files
from virtwarden.system.run import run

_ROOT = 0
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
# As run-parts(8): no backup of an editor's, and nothing that dpkg left.
_PROGRAM = re.compile(r"[A-Za-z0-9_-]+")
_SECONDS = 30
_WAITING_AT_MOST = 1000
_LONGEST_VALUE = 4096
_LONGEST_EVENT = 256 * 1024
_AFTER_FAILURE_SECONDS = 10
_OP = "notify"

Event = Mapping[str, str]


def start(paths: Paths) -> None:
    """Do so in threads, as long as this process lives."""
    waiting: queue.Queue[Event] = queue.Queue(_WAITING_AT_MOST)
    for act in (_receive, _tell_each):
        threading.Thread(target=act, args=(paths, waiting), name="notify", daemon=True).start()


def _receive(paths: Paths, waiting: queue.Queue[Event]) -> None:
    """Take the events as they come: a program that is slow keeps nobody from logging."""
    while True:
        try:
            with _bound(paths.notices) as listener:
                while True:
                    with suppress(ValueError, TypeError, AttributeError, queue.Full):
                        waiting.put_nowait(_event(listener.recv(_LONGEST_EVENT)))
        except OSError as error:
            log.event(log.Level.ERROR, "failed", op=_OP, reason=error)
            time.sleep(_AFTER_FAILURE_SECONDS)


def _bound(path: Path) -> socket.socket:
    files.passable_directory(path.parent)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(path))
    # Its directory belongs to root, and nobody else may write there.
    path.chmod(0o600)
    return listener


def _event(datagram: bytes) -> Event:
    fields = json.loads(datagram)
    return {str(key): str(value) for key, value in fields.items()}


def _tell_each(paths: Paths, waiting: queue.Queue[Event]) -> None:
    told = ""
    while True:
        event = waiting.get()
        try:
            reason = "; ".join(tell(paths.notify, event))
        except Exception as error:  # noqa: BLE001 - the next event is told all the same
            reason = repr(error)
        if reason and reason != told:
            log.event(log.Level.ERROR, "failed", op=_OP, reason=reason)
        told = reason


def tell(directory: Path, event: Event) -> list[str]:
    """Run each program with an event. Gives a sentence for each that did not run to its end."""
    try:
        found, reasons = programs(directory)
    except (WardenError, OSError) as error:
        return [str(error)]
    environment = {key: _value(value) for key, value in event.items()}
    for program in found:
        try:
            run(str(program), timeout=_SECONDS, environment=environment)
        except WardenError as error:
            reasons.append(str(error))
    return reasons


def programs(directory: Path) -> tuple[list[Path], list[str]]:
    """The programs that only root could have written, in order, and why others are not run.

    Raises PolicyError where others than root can write the directory.
    """
    try:
        with trust.directory(directory, _ROOT) as handle:
            names = sorted(filter(_PROGRAM.fullmatch, os.listdir(handle)))  # noqa: PTH208
            found = {name: os.stat(name, dir_fd=handle, follow_symlinks=False) for name in names}
    except FileNotFoundError:
        return [], []
    against = {name: _objection(entry) for name, entry in found.items()}
    runs = [n for n, entry in found.items() if not against[n] and entry.st_mode & stat.S_IXUSR]
    reasons = [f"{directory / name} is not run: {why}" for name, why in against.items() if why]
    return [directory / name for name in runs], reasons


def _objection(found: os.stat_result) -> str:
    if not stat.S_ISREG(found.st_mode):
        return "it is not a regular file"
    if found.st_uid != _ROOT:
        return f"it belongs to uid {found.st_uid}, not to root"
    if found.st_mode & _OTHERS_WRITE:
        return f"others than root may write it (mode {stat.S_IMODE(found.st_mode):04o})"
    return ""


def _value(value: str) -> str:
    return value.replace("\0", "")[:_LONGEST_VALUE]

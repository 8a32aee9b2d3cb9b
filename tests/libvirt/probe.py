#!/usr/bin/python3 -IS
# SPDX-License-Identifier: GPL-2.0-or-later
"""Executed by the wrapper in QEMU's place: tries what a QEMU that was taken over would.

On stdin is a JSON list of tries; it prints a JSON list of how each ended: "" where it worked.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys

_PTRACE_ATTACH = 16
_libc = ctypes.CDLL(None, use_errno=True)


def _read(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY))


def _write(path: str) -> None:
    os.close(os.open(path, os.O_RDWR))


def _list(path: str) -> None:
    os.listdir(path)  # noqa: PTH208 - no more modules than QEMU's own confinement lets us read


def _inherited(descriptor: int) -> None:
    os.fstat(descriptor)


def _connect(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 5):
        pass


def _bind(port: int) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))


def _abstract(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"\0{name}")


def _signal(pid: int) -> None:
    os.kill(pid, 0)


def _trace(pid: int) -> None:
    if _libc.ptrace(_PTRACE_ATTACH, pid, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def _execute(path: str) -> None:
    child = os.fork()
    if child == 0:
        try:
            os.execv(path, [path])  # noqa: S606 - the very thing to be tried
        except OSError as error:
            os._exit(error.errno or 255)
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status):
        raise OSError(os.waitstatus_to_exitcode(status), "exec")


_TRIES = {
    "read": _read,
    "write": _write,
    "list": _list,
    "inherited": _inherited,
    "connect": _connect,
    "bind": _bind,
    "abstract": _abstract,
    "signal": _signal,
    "trace": _trace,
    "execute": _execute,
}


def _try(what: str, argument: object) -> str:
    try:
        _TRIES[what](argument)  # type: ignore[operator]
    except OSError as error:
        return os.strerror(error.errno or 0)
    return ""


if __name__ == "__main__":
    print(json.dumps([_try(*one) for one in json.load(sys.stdin)]))

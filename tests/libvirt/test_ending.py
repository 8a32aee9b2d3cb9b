# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM's user whose processes do not want to end."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from virtwarden.system import users
from virtwarden.system.users import Account

_VM = Account("vmw-killer", 71234, 71234, "3f0ee0bb-0000-4000-8000-000000000001")
_NEIGHBOUR = Account("vmw-neighbour", 71235, 71235, "3f0ee0bb-0000-4000-8000-000000000002")
_KILLER = """
import os
print("ready", flush=True)
while True:
    try:
        os.kill(-1, 9)
    except ProcessLookupError:
        pass
"""
_HALF_DEAD = """
import ctypes, threading, time
threading.Thread(target=lambda: (print("ready", flush=True), time.sleep(600))).start()
ctypes.CDLL(None).syscall(60, 0)  # exit(2) of the first thread alone, on x86-64
"""
_FORKER = """
import os
print("ready", flush=True)
while True:
    try:
        if os.fork():
            os._exit(0)
    except BlockingIOError:
        pass
"""
_SLEEPER = "print('ready', flush=True); import time; time.sleep(600)"


def _run(program: str, account: Account) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        ["/usr/bin/python3", "-ISB", "-c", program],
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
    return process


@pytest.fixture
def neighbour() -> Iterator[subprocess.Popen[str]]:
    process = _run(_SLEEPER, _NEIGHBOUR)
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("program", [_SLEEPER, _KILLER, _HALF_DEAD, _FORKER])
def test_all_processes_of_a_vms_user_end_whatever_they_do_against_it(
    program: str, neighbour: subprocess.Popen[str]
) -> None:
    process = _run(program, _VM)
    users.kill_processes(_VM)
    process.wait()
    assert not users.has_processes(_VM.uid)
    assert neighbour.poll() is None


def test_a_process_whose_first_thread_has_ended_counts(neighbour: subprocess.Popen[str]) -> None:
    process = _run(_HALF_DEAD, _VM)
    assert users.has_processes(_VM.uid)
    users.kill_processes(_VM)
    process.wait()

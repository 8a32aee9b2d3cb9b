# SPDX-License-Identifier: GPL-2.0-or-later
"""The one way to run an outside command."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from virtwarden.errors import CommandError

_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
_TIMEOUT_SECONDS = 30
# After SIGTERM, until SIGKILL; and after that.
_GRACE_SECONDS = 2
# As timeout(1) and the shell say it.
_TERMINATED, _KILLED, _NOT_FOUND = 124, 137, 127


def run(
    *command: str,
    stdin: str = "",
    timeout: int = _TIMEOUT_SECONDS,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a command, named by its absolute path, and return what it printed, as text.

    `environment` has variables beside those that each command gets. Raises CommandError as `output`
    does.
    """
    printed = output(*command, stdin=stdin.encode(), timeout=timeout, environment=environment)
    return printed.decode(errors="replace")


def output(
    *command: str,
    stdin: bytes = b"",
    timeout: int = _TIMEOUT_SECONDS,
    inherited: Collection[int] = (),
    environment: Mapping[str, str] | None = None,
) -> bytes:
    """Run a command, named by its absolute path, and return what it printed.

    The command gets a clean environment, its own session, and of our descriptors only the
    `inherited` ones: a child that kept libvirt's pipe open would block libvirt (virt-manager issue
    299). No file or log gets what it reads and prints.

    Raises CommandError where the command fails, is missing, or runs for more than `timeout`
    seconds. The error has the command in a form to paste, the exit code, and the last line that
    the command wrote on stderr. After the timeout, all processes of its process group are ended,
    as far as the kernel allows.
    """
    import logging
    from io import BytesIO

    import sh  # 20 ms, only for a hook that runs a command

    # The debug log of sh has the beginning of all data in its pipes.
    logging.getLogger("sh").setLevel(logging.WARNING)
    kept: dict[str, Any] = {"_pass_fds": set(inherited)} if inherited else {"_close_fds": True}
    for handle in inherited:
        os.set_inheritable(handle, True)
    # sh 1 returns the command that ran, sh 2 its output as text. Both can write to a file.
    printed = BytesIO()
    try:
        running = sh.Command(command[0])(
            *command[1:],
            _in=stdin,
            _out=printed,
            _env={**(environment or {}), **_ENVIRONMENT},
            _tty_out=False,
            _new_session=True,
            # sh's own _timeout checks only every 0.1 s whether the command has ended.
            _bg=True,
            _bg_exc=False,
            **kept,
        )
    except (sh.CommandNotFound, sh.ForkException) as failure:
        raise _cannot_be_run(command[0], failure) from None
    finally:
        for handle in inherited:
            os.set_inheritable(handle, False)
    try:
        late = _end_when_late(running.pid, timeout)
    except TimeoutError:  # of sh, all that tells of a command would wait for its end
        how = f"did not end in {timeout} s, nor when it was killed"
        raise _failed(command, how, _KILLED, "it waits in the kernel") from None
    with suppress(sh.ErrorReturnCode, sh.SignalException):
        running.wait()
    said = _last_line(running.stderr)
    if late:
        raise _failed(command, f"did not end in {timeout} s", late, said)
    if code := running.exit_code:
        raise _failed(command, f"failed with exit code {code}: {said}", code, said)
    return printed.getvalue()


def _end_when_late(group: int, timeout_seconds: int) -> int:
    """Wait for the first process of a group, and end the group after the timeout.

    Gives 0 where the process ended in time, else the exit code that reports the timeout. The
    kernel tells at once when the process ends; sh reaps it. Raises TimeoutError where the process
    cannot be killed, because it waits for a dead disk for example.
    """
    import select

    try:
        leader = os.pidfd_open(group)
    except ProcessLookupError:  # sh has reaped it already
        return 0
    try:
        ended = select.poll()
        ended.register(leader, select.POLLIN)
        if ended.poll(timeout_seconds * 1000):
            return 0
        import signal

        code = _TERMINATED
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGTERM)
            if not ended.poll(_GRACE_SECONDS * 1000):
                code = _KILLED
            os.killpg(group, signal.SIGKILL)
        if not ended.poll(_GRACE_SECONDS * 1000):
            raise TimeoutError
        return code
    finally:
        os.close(leader)


@contextmanager
def in_background(*command: str, inherited: Collection[int] = ()) -> Iterator[None]:
    """Run a command until the `with` block ends; it gets the `inherited` descriptors."""
    import subprocess

    process = subprocess.Popen(
        command,
        env=_ENVIRONMENT,
        pass_fds=tuple(inherited),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def at_the_terminal(*command: str) -> Iterator[None]:
    """Run a command that talks to the person at the terminal, until the `with` block ends."""
    import subprocess  # 9 ms

    process = subprocess.Popen(command, env=_ENVIRONMENT | {"TERM": os.environ.get("TERM", "")})
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _last_line(stderr: bytes) -> str:
    lines = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"


def _failed(command: tuple[str, ...], how: str, code: int, said: str) -> CommandError:
    return CommandError(
        f"`{shlex.join(command)}` {how}", code=code, said=said, fix="run it by hand"
    )


def _cannot_be_run(program: str, failure: Exception) -> CommandError:
    return CommandError(
        f"{program} cannot be run",
        code=_NOT_FOUND,
        said=str(failure).splitlines()[-1].strip(),
        fix=f"install the Debian package that has it: apt-file search {program}",
    )

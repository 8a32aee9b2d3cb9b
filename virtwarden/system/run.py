"""The one way to run an outside command."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from virtwarden.errors import CommandError

_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
_TIMEOUT_SECONDS = 30
# timeout(1), "EXIT STATUS"
_TIMED_OUT = (124, 137)
_NOT_FOUND = (126, 127)


def run(*command: str, stdin: str = "", timeout: int = _TIMEOUT_SECONDS) -> str:
    """Run a command, named by its absolute path, and give back what it printed, as text.

    Raises CommandError as `output` does.
    """
    return output(*command, stdin=stdin.encode(), timeout=timeout).decode(errors="replace")


def output(
    *command: str,
    stdin: bytes = b"",
    timeout: int = _TIMEOUT_SECONDS,
    inherited: Collection[int] = (),
) -> bytes:
    """Run a command, named by its absolute path, and give back what it printed.

    The command gets a clean environment, its own session, and of our descriptors those alone that
    are to be `inherited`: a child that kept libvirt's pipe open would block libvirt (virt-manager
    issue 299). What it reads and prints is written down nowhere.

    Raises CommandError, with the command as one could paste it, the exit code and the last line
    that it wrote on stderr, where it fails, is missing, or runs for more than `timeout` seconds.
    """
    import logging
    from io import BytesIO

    import sh  # 20 ms, which a hook that has nothing to run does not pay

    # Its debug log has the beginning of all that goes through a pipe.
    logging.getLogger("sh").setLevel(logging.WARNING)
    kept: dict[str, Any] = {"_pass_fds": set(inherited)} if inherited else {"_close_fds": True}
    for handle in inherited:
        os.set_inheritable(handle, True)
    # sh 1 gives back the command that ran, sh 2 its output as text: both fill a file.
    printed = BytesIO()
    try:
        # sh's own _timeout looks only every 0.1 s whether the command has ended: timeout(1) is
        # told by the kernel.
        sh.Command("/usr/bin/timeout")(
            "--kill-after=2",
            str(timeout),
            *command,
            _in=stdin,
            _out=printed,
            _env=_ENVIRONMENT,
            _tty_out=False,
            _new_session=True,
            **kept,
        )
    except (sh.ErrorReturnCode, sh.SignalException) as failure:
        raise _error(command, failure.exit_code, failure.stderr, timeout) from None
    finally:
        for handle in inherited:
            os.set_inheritable(handle, False)
    return printed.getvalue()


@contextmanager
def at_the_terminal(*command: str) -> Iterator[None]:
    """Run a command that talks to whoever is at the terminal, as long as this lasts."""
    import subprocess  # 9 ms

    process = subprocess.Popen(command, env=_ENVIRONMENT | {"TERM": os.environ.get("TERM", "")})
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _error(
    command: tuple[str, ...], code: int, stderr: bytes, timeout_seconds: int
) -> CommandError:
    shown = shlex.join(command)
    lines = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    said = lines[-1].strip() if lines else "it said nothing"
    if code in _TIMED_OUT:
        what, fix = f"`{shown}` did not end in {timeout_seconds} s", "run it by hand"
    elif code in _NOT_FOUND:
        what = f"{command[0]} cannot be run"
        fix = f"install the Debian package that has it: apt-file search {command[0]}"
    else:
        what, fix = f"`{shown}` failed with exit code {code}: {said}", "run it by hand"
    return CommandError(what, code=code, said=said, fix=fix)

"""The one way to run an outside command."""

from __future__ import annotations

import shlex

from virtwarden.errors import CommandError

_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
_TIMEOUT_SECONDS = 30
# timeout(1), "EXIT STATUS"
_TIMED_OUT = (124, 137)
_NOT_FOUND = (126, 127)


def run(*command: str, stdin: str = "", timeout: int = _TIMEOUT_SECONDS) -> str:
    """Run a command, named by its absolute path, and give back what it printed.

    The command gets a clean environment, its own session, and none of our descriptors: a child
    that kept libvirt's pipe open would block libvirt (virt-manager issue 299).

    Raises CommandError, with the command as one could paste it, the exit code and the last line
    that it wrote on stderr, where it fails, is missing, or runs for more than `timeout` seconds.
    """
    import sh  # 20 ms, which a hook that has nothing to run does not pay

    shown = shlex.join(command)
    try:
        # sh's own _timeout looks only every 0.1 s whether the command has ended: timeout(1) is
        # told by the kernel.
        finished = sh.Command("/usr/bin/timeout")(
            "--kill-after=2",
            str(timeout),
            *command,
            _in=stdin,
            _env=_ENVIRONMENT,
            _tty_out=False,
            _close_fds=True,
            _new_session=True,
        )
    except (sh.ErrorReturnCode, sh.SignalException) as failure:
        raise _error(shown, command[0], failure.exit_code, failure.stderr, timeout) from None
    return str(finished)


def _error(
    shown: str, program: str, code: int, stderr: bytes, timeout_seconds: int
) -> CommandError:
    if code in _TIMED_OUT:
        return CommandError(f"`{shown}` did not end in {timeout_seconds} s", fix="run it by hand")
    if code in _NOT_FOUND:
        return CommandError(
            f"{program} cannot be run",
            fix=f"install the Debian package that has it: apt-file search {program}",
        )
    lines = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    last = lines[-1].strip() if lines else "it said nothing"
    return CommandError(f"`{shown}` failed with exit code {code}: {last}", fix="run it by hand")

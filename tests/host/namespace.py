# SPDX-License-Identifier: GPL-2.0-or-later
"""Run a command in a private host: its own mounts, processes, network, IPC and host name.

Three processes stand between the caller and the command:

    python3 -m tests.host      outside; when it dies, by whatever signal, all below it die
    unshare --kill-child       makes the namespaces
    python3 -m tests.host.namespace
                               process 1 inside: lays out the file systems, starts the command,
                               reaps; when it ends, the kernel ends everything else inside
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import FrameType

from tests.host import mounts

CHECKOUT = Path(__file__).resolve().parents[2]
HOSTNAME = "warden-test"
_MARK = "WARDEN_PRIVATE_HOST"
_PYTHON = "/usr/bin/python3"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_BY_SIGNAL = 128
_CANNOT_RUN = 127


class NotPrivateError(RuntimeError):
    """Something that belongs in a private host was about to happen on the real one."""

    def __init__(self) -> None:
        super().__init__(
            "this changes the host: run it inside a private one, "
            f"`{_PYTHON} -B -m tests.host -- COMMAND` from the checkout's root"
        )


def require_private_host() -> None:
    """Raise NotPrivateError outside a private host.

    The host name is looked at too, because an environment is easily inherited or copied.
    """
    if os.environ.get(_MARK) != "1" or os.uname().nodename != HOSTNAME:
        raise NotPrivateError


def main(arguments: list[str]) -> int:
    """Run the command in a new private host and give back its exit code, as a shell would."""
    command = arguments[1:] if arguments[:1] == ["--"] else arguments
    if not command:
        print("usage: python3 -m tests.host [--] COMMAND ARGUMENT…", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        print("tests.host: a private host can be made by root alone: use sudo", file=sys.stderr)
        return 1
    first = [_PYTHON, "-m", "tests.host.namespace", str(Path.cwd()), *command]
    return contained("-mnpiu", first)


def contained(namespaces: str, first: list[str]) -> int:
    """Run `first` as process 1 of new namespaces (unshare(1)), and give back its exit code.

    What it started ends with it, and it with us, by whatever signal we end.
    """
    # unshare blocks SIGTERM and has no parent-death signal of its own: setpriv gives it one.
    kill_with_us = ["setpriv", "--pdeathsig", "KILL", "--"]
    unshare = ["unshare", namespaces, "--fork", "--mount-proc", "--kill-child", "--"]
    environment = os.environ | {
        "PATH": _PATH,
        "PYTHONPATH": str(CHECKOUT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return _supervise(subprocess.Popen([*kill_with_us, *unshare, *first], env=environment))


def _supervise(child: subprocess.Popen[bytes]) -> int:
    received: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        child.kill()

    for number in _ENDING:
        signal.signal(number, end)
    code = child.wait()
    if received:
        return _BY_SIGNAL + received[0]
    return code if code >= 0 else _BY_SIGNAL - code


def _first_process(directory: str, *command: str) -> int:
    mounts.build(CHECKOUT)
    socket.sethostname(HOSTNAME)
    with Path("/etc/hosts").open("a") as hosts:
        hosts.write(f"127.0.1.1 {HOSTNAME}\n")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # By path, since the directory that was inherited is the one below the new mounts.
    os.chdir(directory if Path(directory).is_dir() else "/")
    return _reap_until_ended(_spawn(command))


def _spawn(command: tuple[str, ...]) -> int:
    environment = os.environ | {_MARK: "1"}
    # The terminal sends Ctrl-C to us too; the command and the outside process see to it.
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
    try:
        return os.posix_spawnp(command[0], command, environment, setsigdef=_ENDING)
    except OSError as failure:
        print(f"tests.host: {command[0]}: {failure.strerror}", file=sys.stderr)
        sys.exit(_CANNOT_RUN)


def _reap_until_ended(command_pid: int) -> int:
    # A QEMU that nobody reaps counts as alive for libvirt, which then cannot destroy its domain.
    while True:
        pid, status = os.wait()
        if pid == command_pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else _BY_SIGNAL - code


if __name__ == "__main__":
    sys.exit(_first_process(*sys.argv[1:]))

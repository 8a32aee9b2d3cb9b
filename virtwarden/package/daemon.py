# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's daemons from outside: whether they run, and how to make them look for hooks again.

It reads their pid files and does not ask systemd: a host may have another init, or none.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from virtwarden.paths import Paths
from virtwarden.system.run import run

_BOOTED = Path("/run/systemd/system")  # sd_booted(3)
_SYSTEMCTL = "/usr/bin/systemctl"
_PROGRAMS = ("libvirtd", "virtqemud")


def running(paths: Paths) -> list[int]:
    """The pids of the daemons that run QEMU domains."""
    found = []
    for program in _PROGRAMS:
        try:
            pid = int((paths.daemon_pids / f"{program}.pid").read_text())
            executable = Path(f"/proc/{pid}/exe").readlink().name
        except (OSError, ValueError):
            continue
        # After an upgrade of libvirt the kernel calls it `libvirtd (deleted)`.
        if executable.removesuffix(" (deleted)") == program:
            found.append(pid)
    return found


def have_wrappers(paths: Paths, warn: Callable[[str], None], *, anew: bool = False) -> None:
    """Have the daemons find the wrappers on their PATH: restart those that do not; domains go on.

    `anew` restarts them all, as a daemon keeps the path of a program that it has found before.
    systemd gives them that PATH (packaging/libvirt-path.conf).
    """
    for pid in running(paths):
        if finds_wrappers(paths, pid) and not anew:
            continue
        program = Path(f"/proc/{pid}/exe").readlink().name.removesuffix(" (deleted)")
        if _BOOTED.is_dir():
            run(_SYSTEMCTL, "daemon-reload")
            run(_SYSTEMCTL, "try-restart", f"{program}.service")
        else:
            how = f"PATH={paths.emulators}:$PATH {program}"
            warn(f"to guard new domains from their first start, run: {how}")


def finds_wrappers(paths: Paths, pid: int) -> bool:
    """Whether a daemon's PATH begins with the directory of the wrappers. Raises OSError."""
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    found = [value for value in variables if value.startswith(b"PATH=")]
    return b"".join(found).startswith(f"PATH={paths.emulators}:".encode())


def host_is_up(paths: Paths) -> bool:
    """Whether this is a system that runs, and not a directory in which one is being made."""
    return _BOOTED.is_dir() or bool(running(paths))


def reload(paths: Paths) -> None:
    """Make them look for hooks again, as `systemctl reload libvirtd` does; domains go on."""
    for pid in running(paths):
        os.kill(pid, signal.SIGHUP)

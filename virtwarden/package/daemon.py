# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's daemons from outside: whether they run, and how to make them look for hooks again.

It reads their pid files and does not ask systemd: a host may have another init, or none.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from virtwarden.paths import Paths

_PROGRAMS = ("libvirtd", "virtqemud")
_BOOTED = Path("/run/systemd/system")  # sd_booted(3)


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


def host_is_up(paths: Paths) -> bool:
    """Whether this is a system that runs, and not a directory in which one is being made."""
    return _BOOTED.is_dir() or bool(running(paths))


def reload(paths: Paths) -> None:
    """Make them look for hooks again, as `systemctl reload libvirtd` does; domains go on."""
    for pid in running(paths):
        os.kill(pid, signal.SIGHUP)

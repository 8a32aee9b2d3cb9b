# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be left behind on a host, to be compared before and after."""

from __future__ import annotations

import os
from pathlib import Path

from tests.host.command import run

_WHOLE = ("/etc", "/run", "/tmp", "/home")
_TOPS = ("/", "/usr", "/usr/local", "/var", "/var/lib", "/var/lib/libvirt", "/root", "/dev")
# The time of change would tell more, but an overlay, read for the first time, sets that by itself.
_SHOWN = ("-printf", "%p %T@ %s %U:%G %M\n")


def traces() -> dict[str, list[str]]:
    """Tell which users, files, interfaces, rules, mounts and orphans there are.

    /var, /usr and /root are looked into not deeply: they hold a million files.
    """
    return {
        "users": _lines("getent", "passwd"),
        "groups": _lines("getent", "group"),
        "files": _lines("find", *_WHOLE, *_SHOWN),
        "tops": _lines("find", *_TOPS, "-maxdepth", "1", "!", "-path", "/proc", *_SHOWN),
        "interfaces": _lines("ip", "-o", "link"),
        "rules": _lines("nft", "list", "ruleset"),
        "mounts": Path("/proc/self/mountinfo").read_text().splitlines(),
        "orphans": _lines("pgrep", "-a", "-P", "1"),
        "hostname": [os.uname().nodename],
    }


def _lines(*command: str) -> list[str]:
    return run(*command, check=False).stdout.splitlines()

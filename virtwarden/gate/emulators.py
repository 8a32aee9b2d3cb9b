# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMUs of libvirt's running domains, and which taps each got."""

from __future__ import annotations

import re
from pathlib import Path

_PID = re.compile(r"<domstatus [^>]*\bpid='(\d+)'")
_TAP = re.compile(r"<target dev='([^']+)'")


def emulators(libvirt_run: Path) -> dict[str, int]:
    """The pid of the QEMU that libvirt gave a tap to, by the tap's name.

    libvirt writes its domains' state there, which only root can read or write.
    """
    found: dict[str, int] = {}
    for file in libvirt_run.glob("*.xml"):
        try:
            text = file.read_text(errors="replace")
        except OSError:
            continue
        if pid := _PID.search(text):
            found |= dict.fromkeys(_TAP.findall(text), int(pid[1]))
    return found

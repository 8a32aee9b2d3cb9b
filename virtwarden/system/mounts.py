# SPDX-License-Identifier: GPL-2.0-or-later
"""What is mounted, as this process sees it: proc_pid_mountinfo(5)."""

from __future__ import annotations

import re
from pathlib import Path

_ESCAPED = re.compile(r"\\([0-7]{3})")


def of_type(kind: str, mounts: Path = Path("/proc/self/mountinfo")) -> tuple[str, ...]:
    """Where file systems of this type are mounted, each place once."""
    found = []
    for line in mounts.read_text(errors="surrogateescape").splitlines():
        words, _, source = line.partition(" - ")
        if source.split(" ", 1)[0] == kind:
            found.append(_ESCAPED.sub(lambda code: chr(int(code[1], 8)), words.split(" ")[4]))
    return tuple(dict.fromkeys(found))

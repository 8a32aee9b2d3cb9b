# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that opens a file in the moment in which its user may, and keeps it open."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PROGRAM = """
import signal, sys
print("waiting", flush=True)
while True:
    try:
        kept = open(sys.argv[1], sys.argv[2])
    except OSError:
        continue
    print("open", flush=True)
    signal.pause()
"""


@contextmanager
def grabber(ids: tuple[int, int], file: Path, mode: str) -> Iterator[subprocess.Popen[str]]:
    """Have a process with this uid and gid try, as open() does with this mode."""
    process = subprocess.Popen(
        ["/usr/bin/python3", "-c", _PROGRAM, str(file), mode],
        stdout=subprocess.PIPE,
        text=True,
        user=ids[0],
        group=ids[1],
        extra_groups=[],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    with process:
        try:
            yield process
        finally:
            process.kill()


def was_opened(process: subprocess.Popen[str]) -> bool:
    """End the process; whether it had the file."""
    process.kill()
    output, _ = process.communicate()
    return "open" in output

# SPDX-License-Identifier: GPL-2.0-or-later
"""The hook that libvirt calls, a program of its own, beside a service and a host of the test's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SCRIPT = (REPOSITORY / "hooks" / "qemu.py").read_text()
ASK = (REPOSITORY / "virtwarden" / "service" / "ask.py").read_text()
BEHIND = ("virtwarden/__init__.py", "virtwarden/service/__init__.py", "virtwarden/service/wire.py")
"""What the hook imports beside ask.py."""
CALL = ["web01", "prepare", "begin", "-"]
XML = b"<domain/>"


@dataclass(frozen=True)
class Answer:
    """What libvirt takes back from the hook."""

    code: int
    stdout: bytes
    stderr: bytes


BY_ITSELF = Answer(7, b"by itself", b"")
WORK = "import sys; sys.stdout.write('by itself'); sys.stdin.buffer.read(); sys.exit(7)"


def call_hook(
    socket: Path,
    xml: bytes = XML,
    arguments: Sequence[str | bytes] = CALL,
    called: str = "qemu",
    **constants: object,
) -> Answer:
    """Call the hook, which has this socket for the service's, from where it is installed."""
    script = _installed(socket, called, constants)
    done = subprocess.run([script, *arguments], input=xml, capture_output=True, check=False)
    return Answer(done.returncode, done.stdout, done.stderr)


def share(socket: Path) -> Path:
    """Where the hook finds what is behind it."""
    return socket.parent / "share"


def does(socket: Path, work: str) -> None:
    """Have the hook do this where the service gives no answer."""
    for name in BEHIND:
        copy = share(socket) / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, copy)
    (share(socket) / "virtwarden" / "service" / "ask.py").touch()
    (share(socket) / "virtwarden" / "hook.py").write_text(f"{work}\nmain = lambda *_: 0\n")


def _installed(socket: Path, called: str, constants: dict[str, object]) -> Path:
    """The entry script, and what it imports where that is there, with the test's own constants."""
    values = {
        "SERVICE": str(socket),
        "SERVICE_UID": os.getuid(),
        "SHARE": str(share(socket)),
        "LOGGER": "/bin/true",
        **constants,
    }
    ask = share(socket) / "virtwarden" / "service" / "ask.py"
    if ask.exists():
        ask.write_text(_with(values, ASK))
    script = socket.parent / "hooks" / called
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(_with(values, SCRIPT))
    script.chmod(0o755)
    return script


def _with(constants: dict[str, object], text: str) -> str:
    def line(found: re.Match[str]) -> str:
        name = found[1]
        return f"{name} = {constants[name]!r}" if name in constants else found[0]

    return re.sub(r"^([A-Z_]+) = .*$", line, text, flags=re.M)

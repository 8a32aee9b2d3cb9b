"""The hook that libvirt calls, a program of its own, beside a service and a host of the test's."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SOURCE = (REPOSITORY / "hooks" / "qemu.pl").read_text()
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


def constant(name: str) -> str:
    """What the hook knows under this name, as it stands there."""
    (value,) = re.findall(rf"^my \${name} = (.*?);", SOURCE, re.M)
    return str(value)


def door(
    socket: Path,
    xml: bytes = XML,
    arguments: Sequence[str | bytes] = CALL,
    called: str = "qemu",
    **constants: object,
) -> Answer:
    """Call the hook, which has this socket for the service's, from where it is installed."""
    script = _installed(socket, called, constants)
    command = ["/usr/bin/perl", "-Mstrict", "-w", script, *arguments]
    done = subprocess.run(command, input=xml, capture_output=True, check=False)
    return Answer(done.returncode, done.stdout, done.stderr)


def share(socket: Path) -> Path:
    """Where the hook finds what it does by itself."""
    return socket.parent / "share"


def does(socket: Path, work: str) -> None:
    """Have the hook do this where the service gives no answer."""
    share(socket).mkdir(exist_ok=True)
    (share(socket) / "by_itself.py").write_text(work)


def _installed(socket: Path, called: str, constants: dict[str, object]) -> Path:
    values = {"SERVICE": f"'{socket}'", "SHARE": f"'{share(socket)}'", "SERVICE_UID": os.getuid()}
    text = SOURCE
    for name, value in (values | constants).items():
        text = text.replace(f"my ${name} = {constant(name)};", f"my ${name} = {value};")
    script = socket.parent / "hooks" / called
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(text)
    return script

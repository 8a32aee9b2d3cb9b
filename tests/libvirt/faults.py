# SPDX-License-Identifier: GPL-2.0-or-later
"""Crashes on demand: a hook that is killed as soon as it has come to a chosen step.

The fuse is a file, since a start and a stop are the work of several processes.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.host.namespace import CHECKOUT
from virtwarden.changes import KINDS, journal

HOOK = f"""\
#!/usr/bin/python3 -I
import sys
sys.path[:0] = ["/usr/share/virt-warden", "{CHECKOUT}"]
from tests.libvirt import faults
from virtwarden.hook import main
faults.burn(sys.argv[2])
sys.exit(main(sys.argv[1:], sys.stdin.buffer, sys.stdout.buffer, sys.stderr))
"""
"""A hook for libvirt: virt-warden's, as it is installed, with the fuse in it."""

_FUSE = Path("/run/fuse")
_BLOWN = Path("/run/fuse-blown")


def light(steps: int, *ops: str) -> None:
    """Have a hook killed at the step of this number, from 1, counted over these operations."""
    _BLOWN.unlink(missing_ok=True)
    _FUSE.write_text(f"{steps} {' '.join(ops)}")


def blown() -> str:
    """The step at which a hook was killed, or an empty string where none was."""
    return _BLOWN.read_text() if _BLOWN.exists() else ""


def burn(op: str) -> None:
    """Make this process, a hook called for `op`, one that is killed where the fuse ends."""
    _, *ops = _FUSE.read_text().split() if _FUSE.exists() else ["0"]
    if op not in ops:
        return
    journal._append = _followed(journal._append, lambda _, line: f"{op}: written down: {line}")  # type: ignore[assignment]
    for kind in KINDS.values():
        for act in ("apply", "undo"):
            setattr(kind, act, _followed(getattr(kind, act), _naming(f"{op}: {act}")))


def _naming(what: str) -> Callable[..., str]:
    return lambda change, *_: f"{what}: {change.describe()}"


def _followed(act: Callable[..., Any], name: Callable[..., str]) -> Callable[..., Any]:
    def acted(*arguments: Any) -> Any:
        result = act(*arguments)
        left, *ops = _FUSE.read_text().split()
        _FUSE.write_text(" ".join([str(int(left) - 1), *ops]))
        if int(left) == 1:
            _BLOWN.write_text(name(*arguments))
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return acted


def kill_while_writing(which: int) -> None:
    """Have this process end before the file of this number, from 1, is put in its place."""
    replace_file, written = Path.replace, itertools.count(1)

    def killed(self: Path, target: str | Path) -> Path:
        if next(written) == which:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace_file(self, target)

    Path.replace = killed  # type: ignore[method-assign]

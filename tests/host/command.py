# SPDX-License-Identifier: GPL-2.0-or-later
"""The one way in which the private host's helpers run a command."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping

_SECONDS = 60


class CommandFailedError(RuntimeError):
    """A command failed; the message has the command as one could paste it, and what it said."""


def run(
    *command: str,
    check: bool = True,
    stdin: str = "",
    seconds: float = _SECONDS,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; where `check`, a failure raises CommandFailedError.

    One that takes longer than `seconds` is killed, and raises TimeoutExpired. Without an
    `environment` it has ours.
    """
    done = subprocess.run(
        command,
        check=False,
        text=True,
        capture_output=True,
        input=stdin,
        # No terminal: virsh would look for somebody there who has a password.
        start_new_session=True,
        timeout=seconds,
        env=environment,
    )
    if check and done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise CommandFailedError(f"`{shlex.join(command)}` exited {done.returncode}: {said}")
    return done

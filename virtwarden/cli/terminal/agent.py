# SPDX-License-Identifier: GPL-2.0-or-later
"""Whoever runs a command at a terminal answers there what systemd-ask-password(1) asks."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext

from virtwarden.system.run import at_the_terminal

_AGENT = "/usr/bin/systemd-tty-ask-password-agent"


def answering_here() -> AbstractContextManager[None]:
    """Questions show on this terminal as long as this lasts; without a terminal, elsewhere."""
    if not os.isatty(sys.stdin.fileno()) or not os.access(_AGENT, os.X_OK):
        return nullcontext()
    return at_the_terminal(_AGENT, "--watch")

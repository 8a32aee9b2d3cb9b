# SPDX-License-Identifier: GPL-2.0-or-later
"""How a command talks with the person who runs it, while it works."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from virtwarden.system.keys import Secret

Progress = Callable[[int, int], None]
"""Told how many bytes of how many are done."""


class Dialogue(Protocol):
    """A terminal, or what stands in for one."""

    def say(self, line: str) -> None:
        """Show a line."""

    def progress(self, title: str) -> Progress:
        """A function to call with how much is done, and of how much."""

    def new_passphrase(self, purpose: str) -> Secret:
        """A new passphrase for this purpose. Raises HostError where there is none."""

    def answering(self) -> AbstractContextManager[None]:
        """While this lasts, the person can answer here what systemd-ask-password(1) asks."""

# SPDX-License-Identifier: GPL-2.0-or-later
"""How whoever runs a command is told and asked while it is at work."""

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
        """A line for whoever reads it now."""

    def progress(self, title: str) -> Progress:
        """What is to be called with how much of how much is done."""

    def new_passphrase(self, purpose: str) -> Secret:
        """A passphrase that is thought up for this purpose. Raises HostError where it is none."""

    def answering(self) -> AbstractContextManager[None]:
        """While this lasts, what systemd-ask-password(1) asks can be answered here."""

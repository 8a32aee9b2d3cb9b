# SPDX-License-Identifier: GPL-2.0-or-later
"""The terminal that a command runs at, as the work behind the command sees it."""

from __future__ import annotations

import getpass
import os
import sys
from contextlib import AbstractContextManager

from virtwarden.cli.terminal.agent import answering_here
from virtwarden.cli.terminal.progress import bar
from virtwarden.errors import HostError
from virtwarden.luks.dialogue import Progress
from virtwarden.system.keys import Secret

_SHORTEST_PASSPHRASE = 12


class Terminal:
    """Standard input and output: of a person, or of a script."""

    def say(self, line: str) -> None:
        """Print it at once."""
        print(line, flush=True)

    def progress(self, title: str) -> Progress:
        """A bar, or a line now and then."""
        return bar(title)

    def answering(self) -> AbstractContextManager[None]:
        """Questions show here."""
        return answering_here()

    def new_passphrase(self, purpose: str) -> Secret:
        """A new one, typed twice, or a line of standard input where that is no terminal."""
        if not os.isatty(sys.stdin.fileno()):
            passphrase = sys.stdin.readline().rstrip("\n")
        else:
            passphrase = getpass.getpass(f"New {purpose.lower()}: ")
            if passphrase != getpass.getpass("Again: "):
                raise HostError("the two passphrases differ", fix="again")
        if len(passphrase) < _SHORTEST_PASSPHRASE:
            raise HostError(
                f"a passphrase needs {_SHORTEST_PASSPHRASE} letters", fix="take a longer one"
            )
        return Secret(passphrase.encode())

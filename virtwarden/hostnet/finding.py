# SPDX-License-Identifier: GPL-2.0-or-later
"""One thing that is wrong with the host's network."""

from __future__ import annotations

from dataclasses import dataclass

from virtwarden.errors import FIX

RENDER = "virt-warden network render"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: where, what, why it matters, and the fix."""

    item: str
    subject: str
    what: str
    why: str
    fix: str

    def __str__(self) -> str:
        """The whole line."""
        return f"{self.item}: {self.subject}: {self.what}: {self.why}{FIX}{self.fix}"

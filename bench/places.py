# SPDX-License-Identifier: GPL-2.0-or-later
"""What is there in one way to start a VM, and not in another."""

from __future__ import annotations

from pathlib import Path


def show(file: Path, *, in_place: bool) -> None:
    """Have a file in its place, or out of everybody's sight beside it."""
    hidden = file.with_suffix(".hidden")
    wanted, other = (file, hidden) if in_place else (hidden, file)
    if not wanted.exists():
        other.rename(wanted)

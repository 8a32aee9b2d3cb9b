# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain's XML out of a file that an admin names; `-` is what comes from a pipe."""

from __future__ import annotations

import sys
from pathlib import Path

from virtwarden.errors import HostError


def read_xml(file: Path) -> bytes:
    """The file's content. Raises HostError where it cannot be read."""
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise HostError(f"{file}: {error.strerror}", fix=f"ls -l {file}") from None

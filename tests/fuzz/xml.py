# SPDX-License-Identifier: GPL-2.0-or-later
"""The hook's XML: whatever comes, there is a Domain or one line that says why there is none."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["virtwarden"]):
    from virtwarden.domain import uses
    from virtwarden.domain.model import read
    from virtwarden.enrolment.enrol import is_enrolled
    from virtwarden.errors import WardenError
    from virtwarden.paths import Paths

SEEDS = Path(__file__).parents[1] / "unit" / "golden" / "xml"


def one(data: bytes) -> None:
    """Read it, and ask of it what the guards ask first."""
    try:
        domain = read(data)
        uses.uses(domain)
        is_enrolled(data, Paths())
    except WardenError as error:
        line = str(error)
        assert line.isprintable(), repr(line)
    else:
        assert domain.name


if __name__ == "__main__":
    # What is found to lead further is written into the first directory, seeds are only read.
    atheris.Setup([*sys.argv, tempfile.mkdtemp(), str(SEEDS)], one)
    atheris.Fuzz()

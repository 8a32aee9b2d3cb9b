# SPDX-License-Identifier: GPL-2.0-or-later
"""`python3 -B -m tests` runs all that needs a private host: tests/libvirt and tests/package.

It takes the options of `python3 -m tests.libvirt`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.libvirt.__main__ import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(__file__).parent / "package"))

"""`python3 -B -m tests.appliance` runs what CI does of these tests, with `--all` all of them.

Two hosts boot at once where there are two CPUs. Other options are handed on to pytest.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests import files

# What no other test shows, and nothing that takes long to show little more.
_CORE = ("test_cells.py", "test_luks.py")

if __name__ == "__main__":
    here = Path(__file__).parent
    options = [option for option in sys.argv[1:] if option != "--all"]
    chosen = here.glob("test_*.py") if "--all" in sys.argv else (here / name for name in _CORE)
    sys.exit(files.run([*chosen], (), options))

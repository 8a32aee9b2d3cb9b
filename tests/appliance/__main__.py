"""`python3 -B -m tests.appliance` runs what CI does of these tests, with `--all` all of them.

Two hosts boot at once where there are two CPUs. Other options are handed on to pytest.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests import files

# What no other test shows, and nothing that takes long to show little more; by pytest's -k.
_CORE = {
    "test_cells.py": "",
    "test_luks.py": "decrypted or wrong_key or libvirtd_is_killed or power_cut",
}

if __name__ == "__main__":
    here = Path(__file__).parent
    options = [option for option in sys.argv[1:] if option != "--all"]
    chosen = {here / name: selected for name, selected in _CORE.items()}
    if "--all" in sys.argv:
        chosen = dict.fromkeys(here.glob("test_*.py"), "")
    sys.exit(files.run(chosen, (), options))

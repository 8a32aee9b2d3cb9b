# SPDX-License-Identifier: GPL-2.0-or-later
"""`python3 -B -m tests.appliance` runs what CI does of these tests, with `--all` all of them.

Two hosts boot at once where there are two CPUs. With `--images` nothing is run: what the tests boot
from is made, where it is not there yet. Other options are handed on to pytest.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests import files
from tests.appliance import layers
from tests.appliance.recipe import RECIPES, TRIXIE

# What no other test shows, and nothing that takes long to show little more; by pytest's -k.
_CORE = {
    "test_cells.py": "not denies and not power_cut",
    "test_luks.py": "decrypted or wrong_key or libvirtd_is_killed or power_cut",
}


def main() -> int:
    """Do as told; 0 where all went well."""
    parser = argparse.ArgumentParser(prog="tests.appliance", description=__doc__)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--images", action="store_true")
    parser.add_argument("--debian", choices=sorted(RECIPES), default=TRIXIE.codename)
    told, options = parser.parse_known_args()
    if told.images:
        layers.with_package(layers.plain(RECIPES[told.debian]), layers.newest_package())
        return 0
    here = Path(__file__).parent
    chosen = {here / name: selected for name, selected in _CORE.items()}
    if told.all:
        chosen = dict.fromkeys(here.glob("test_*.py"), "")
    return files.run(chosen, (), ["--debian", told.debian, *options])


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: GPL-2.0-or-later
"""`python3 -B -m tests.clients` makes VMs with the programs that admins make them with.

Each file runs in a private host of its own, a host for each CPU. With `--ci` those tests alone are
run that CI has time for. Options are handed on to pytest. What the programs are, and what came of
it: docs/clients.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests import files

_IN_CI = {
    "define_and_start": "new or create",
    "terraform": "",
    "virt_install": "",
    "virt_xml": "",
    "virtnbdbackup": "",
}
"""The files that CI runs, and which of their tests (pytest(1), -k); all, where that is empty.

Those of Ansible and Vagrant want programs that take longer to install than the others to run.
"""


def main(options: list[str]) -> int:
    """Run the files; 0 where all passed."""
    here = Path(__file__).parent
    chosen = dict.fromkeys(sorted(here.glob("test_*.py")), "")
    if "--ci" in options:
        options = [option for option in options if option != "--ci"]
        chosen = {here / f"test_{name}.py": which for name, which in _IN_CI.items()}
    return files.run(chosen, (*files.PYTHON, "tests.host", "--"), options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

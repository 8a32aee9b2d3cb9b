"""`python3 -B -m tests.libvirt` runs these tests, a file in a private host, a host for each CPU.

Most of a start is spent waiting for one process after another, so that two hosts at once take
little more than half the time of one. Options are handed on to pytest.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests import files

if __name__ == "__main__":
    here = Path(__file__).parent
    private_host = (*files.PYTHON, "tests.host", "--")
    sys.exit(files.run(dict.fromkeys(here.glob("test_*.py"), ""), private_host, sys.argv[1:]))

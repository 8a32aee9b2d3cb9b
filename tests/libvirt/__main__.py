"""`python3 -B -m tests.libvirt` runs these tests, a file in a private host, a host for each CPU.

Most of a start is spent waiting for one process after another, so that two hosts at once take
little more than half the time of one. Options are handed on to pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_HERE = Path(__file__).parent
_PYTHON = (sys.executable, "-B", "-m")
# pytest(1), "Exit codes": no test was selected
_NONE_SELECTED = 5


def main(options: list[str]) -> int:
    """Run every file of tests here; 0 where all passed. What each says comes when it has ended."""
    # The longest first, by and large: else one that came last would run alone.
    files = sorted(_HERE.glob("test_*.py"), key=lambda file: file.stat().st_size, reverse=True)
    with ThreadPoolExecutor(os.cpu_count()) as hosts:
        return int(not all([*hosts.map(lambda file: _passes(file, options), files)]))


def _passes(file: Path, options: list[str]) -> bool:
    began = time.monotonic()
    done = subprocess.run(
        [*_PYTHON, "tests.host", "--", *_PYTHON, "pytest", str(file), *options],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    passed = done.returncode in (0, _NONE_SELECTED)
    verdict = "" if passed else ": FAILED"
    said = done.stdout.rstrip()
    print(f"{file.name}, {time.monotonic() - began:.0f} s{verdict}\n{said}\n", flush=True)
    return passed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

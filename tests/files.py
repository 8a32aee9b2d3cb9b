# SPDX-License-Identifier: GPL-2.0-or-later
"""Run files of tests side by side, each in a process of its own, one for each CPU."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PYTHON = (sys.executable, "-B", "-m")
# pytest(1), "Exit codes": no test was selected
_NONE_SELECTED = 5


def run(files: Mapping[Path, str], before: Sequence[str], options: Sequence[str]) -> int:
    """Give 0 where all passed. What each says comes when it has ended.

    Of each file those tests are run that its expression selects (pytest(1), -k); all, where it is
    empty. `before` stands before pytest in each command. The largest file begins, by and large the
    one that takes longest: else one that came last would run alone.
    """
    in_order = sorted(files, key=lambda file: file.stat().st_size, reverse=True)
    with ThreadPoolExecutor(os.cpu_count()) as at_once:
        done = at_once.map(
            lambda file: _passes(file, before, ["-k", files[file], *options]), in_order
        )
        return int(not all([*done]))


def _passes(file: Path, before: Sequence[str], options: Sequence[str]) -> bool:
    began = time.monotonic()
    done = subprocess.run(
        [*before, *PYTHON, "pytest", str(file), *options],
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

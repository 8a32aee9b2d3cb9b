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


_AGAIN = "--again"
"""Run what failed once more, with nothing beside it."""


def run(files: Mapping[Path, str], before: Sequence[str], options: Sequence[str]) -> int:
    """Give 0 where all passed. What each says comes when it has ended.

    Of each file, or folder, those tests are run that its expression selects (pytest(1), -k); all,
    where it is empty. `before` stands before pytest in each command. The largest begins, by and
    large the one that takes longest: else one that came last would run alone.
    """
    handed_on = [option for option in options if option != _AGAIN]

    def passes(file: Path) -> bool:
        return _passes(file, before, ["-k", files[file], *handed_on])

    in_order = sorted(files, key=_size, reverse=True)
    with ThreadPoolExecutor(os.cpu_count()) as at_once:
        done = [*at_once.map(passes, in_order)]
    failed = [file for file, passed in zip(in_order, done, strict=True) if not passed]
    if failed and _AGAIN in options:
        names = " ".join(file.name for file in failed)
        print(f"Once more, one after the other: {names}\n", flush=True)
        failed = [file for file in failed if not passes(file)]
    return int(bool(failed))


def _size(file: Path) -> int:
    """Bytes of tests: of a file's, or of all in a folder."""
    tests = file.glob("test_*.py") if file.is_dir() else [file]
    return sum(test.stat().st_size for test in tests)


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

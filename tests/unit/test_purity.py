# SPDX-License-Identifier: GPL-2.0-or-later
"""The tests' own guard: no process is started by a test that does not say so."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest
import sh


@pytest.mark.parametrize(
    "start",
    [
        lambda: subprocess.run(["true"], check=False),
        lambda: subprocess.Popen(["true"]),
        lambda: os.system("true"),  # noqa: S605 - it is what must not work
        lambda: os.fork(),  # noqa: PLW0108 - looked up when the guard is in place
        lambda: os.posix_spawn("/bin/true", ["true"], {}),
        lambda: os.execv("/bin/true", ["true"]),  # noqa: S606
        lambda: sh.true(),  # noqa: PLW0108
    ],
)
def test_a_test_that_starts_a_process_fails(start: Callable[[], object]) -> None:
    with pytest.raises(BaseException, match=r"mark it with @pytest\.mark\.process") as failed:
        start()
    assert failed.type is pytest.fail.Exception


@pytest.mark.process
def test_one_that_says_so_may() -> None:
    assert subprocess.run(["true"], check=False).returncode == 0

# SPDX-License-Identifier: GPL-2.0-or-later
"""How files of tests are run side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import files

pytestmark = pytest.mark.process

_FAILS_ONCE = """
from pathlib import Path


def test_it():
    assert Path({mark!r}).exists() or Path({mark!r}).touch()
"""
_NO_CACHE = ("-p", "no:cacheprovider")


@pytest.fixture
def fails_once(tmp_path: Path) -> dict[Path, str]:
    file = tmp_path / "test_once.py"
    file.write_text(_FAILS_ONCE.format(mark=str(tmp_path / "mark")))
    return {file: ""}


def test_a_file_that_fails_fails_the_run(fails_once: dict[Path, str]) -> None:
    assert files.run(fails_once, (), _NO_CACHE) == 1


def test_it_may_be_run_once_more_which_is_said(
    fails_once: dict[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert files.run(fails_once, (), ["--again", *_NO_CACHE]) == 0
    said = capsys.readouterr().out
    assert "test_once.py, " in said
    assert ": FAILED" in said
    assert "Once more, one after the other: test_once.py" in said


def test_what_fails_twice_fails_the_run(tmp_path: Path) -> None:
    file = tmp_path / "test_never.py"
    file.write_text("def test_it():\n    assert False\n")
    assert files.run({file: ""}, (), ["--again", *_NO_CACHE]) == 1


def test_a_folder_is_run_as_a_whole(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"test_{name}.py").write_text("def test_it():\n    assert True\n")
    assert files.run({tmp_path: ""}, (), _NO_CACHE) == 0

# SPDX-License-Identifier: GPL-2.0-or-later
"""Each source file says under which licence it stands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
LINE = "# SPDX-License-Identifier: GPL-2.0-or-later"
# Made by tools; recorded, not written; of Debian's format.
PASSING = {"build", ".git", "golden", "fixtures", "state-0.1.0", "__pycache__"}


def sources() -> Iterator[Path]:
    for path in sorted(REPOSITORY.rglob("*")):
        if path.is_file() and not PASSING & {*path.relative_to(REPOSITORY).parts}:
            with path.open("rb") as file:
                is_script = file.read(2) == b"#!"
            if is_script or path.suffix in (".py", ".sh", ".bash") or path.name == "Makefile":
                yield path


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_source_file_names_its_licence_in_its_first_lines(path: Path) -> None:
    first, second = [*path.read_text().split("\n", 2), "", ""][:2]
    assert (second if first.startswith("#!") else first) == LINE

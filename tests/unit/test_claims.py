# SPDX-License-Identifier: GPL-2.0-or-later
"""Claims of running domains, as a review reads them: without their lock."""

from __future__ import annotations

from pathlib import Path

import pytest

from virtwarden.changes.claims import Claim, claims_on
from virtwarden.paths import Paths


def test_a_domain_that_stops_during_the_review_of_another_keeps_it_from_no_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Paths(run=tmp_path / "run", state=tmp_path / "state")
    web, db = (Claim("/base", 64769, 77, name, name, False, False) for name in ("web01", "db01"))
    for claim in (web, db):
        claim.apply(paths, {})
    read_text = Path.read_text

    def stops_first(file: Path, *arguments: str) -> str:
        web.undo(paths, {})
        return read_text(file, *arguments)

    monkeypatch.setattr(Path, "read_text", stops_first)
    assert claims_on(paths, web.device, web.number) == (db,)

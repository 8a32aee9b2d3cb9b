# SPDX-License-Identifier: GPL-2.0-or-later
"""The service tells who spoofs, and nobody waits for it meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from virtwarden import drops, gate, log
from virtwarden.drops import Reading
from virtwarden.paths import Paths
from virtwarden.service import spoofing
from virtwarden.system import files

Lines = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    found: Lines = []
    monkeypatch.setattr(log, "event", lambda _, what, **fields: found.append((what, fields)))
    return found


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    paths = Paths(run=tmp_path)
    monkeypatch.setattr(gate, "is_up", lambda _: True)
    reading = Reading("b3d64a2b", "52:54:00:00:00:01", 7, {"arp": 231})
    monkeypatch.setattr(gate, "dropped", lambda paths: drops.record(paths, [reading]))
    return paths


class Connection:
    """libvirt, which answers only once a hook has ended that may wait for the lock."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def lookupByUUIDString(self, _uuid: str) -> Connection:  # noqa: N802 - libvirt's
        with files.locked(self._paths.drops, wait=False):
            return self

    def name(self) -> str:
        return "web01"


def test_libvirt_is_asked_while_no_hook_has_to_wait(paths: Paths, lines: Lines) -> None:
    connection: Any = Connection(paths)
    spoofing.tell(paths, connection)
    ((what, fields),) = lines
    assert (what, fields["domain"], fields["frames"]) == ("spoofing", "web01", 231)


def test_where_nothing_can_be_counted_the_service_goes_on(
    paths: Paths, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Paths) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gate, "dropped", full)
    connection: Any = Connection(paths)
    spoofing.tell(paths, connection)
    assert [what for what, _ in lines] == ["failed"]

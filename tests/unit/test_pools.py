# SPDX-License-Identifier: GPL-2.0-or-later
"""A pool's volume is the file that libvirt's own notes of the pool make it."""

from __future__ import annotations

from pathlib import Path

import pytest
import xmls

from virtwarden.domain import pools
from virtwarden.domain.model import read
from virtwarden.domain.pools import Place, place
from virtwarden.domain.uses import uses

POOL = "<pool type='{}'><name>p</name><target><path>/srv/p</path></target></pool>"


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Where libvirt keeps running pools, and defined ones."""
    directories = (tmp_path / "run", tmp_path / "etc")
    for directory in directories:
        directory.mkdir()
    monkeypatch.setattr(pools, "KEPT", directories)
    return directories


@pytest.mark.parametrize(
    ("kind", "of_disk"),
    [("dir", "file"), ("fs", "file"), ("netfs", "file"), ("logical", "block")],
)
def test_a_volume_of_a_directory_or_a_volume_group_is_below_its_target(
    kept: tuple[Path, Path], kind: str, of_disk: str
) -> None:
    (kept[1] / "p.xml").write_text(POOL.format(kind))
    assert place("p", "web01.qcow2") == Place(of_disk, "/srv/p/web01.qcow2")


def test_a_running_pool_counts_before_the_defined_one_of_its_name(
    kept: tuple[Path, Path],
) -> None:
    (kept[1] / "p.xml").write_text(POOL.format("dir"))
    running = POOL.format("dir").replace("/srv/p", "/srv/q")
    (kept[0] / "p.xml").write_text(f"<poolstate>{running}</poolstate>")
    assert place("p", "web01.qcow2") == Place("file", "/srv/q/web01.qcow2")


@pytest.mark.parametrize("kind", ["disk", "iscsi", "mpath", "rbd", "scsi", "zfs"])
def test_a_volume_of_another_pool_has_no_known_file(kept: tuple[Path, Path], kind: str) -> None:
    (kept[1] / "p.xml").write_text(POOL.format(kind))
    assert place("p", "v") is None


@pytest.mark.parametrize("damaged", ["", "<pool", "<network/>", "<poolstate/>"])
def test_a_pool_whose_notes_are_damaged_or_missing_has_no_files(
    kept: tuple[Path, Path], damaged: str
) -> None:
    (kept[0] / "p.xml").write_text(damaged)
    assert place("p", "v") is None
    assert place("q", "v") is None


@pytest.mark.parametrize(
    ("pool", "volume"),
    [("../etc/p", "v"), ("p", "../v"), ("p", "a/b"), ("p", ".."), ("p", ""), ("", "v"), (".", "v")],
)
def test_a_name_leads_nowhere_else(kept: tuple[Path, Path], pool: str, volume: str) -> None:
    (kept[0] / "p.xml").write_text(POOL.format("dir"))
    (kept[1] / "p.xml").write_text(POOL.format("dir"))
    assert place(pool, volume) is None


def test_a_target_that_is_no_absolute_path_names_no_file(kept: tuple[Path, Path]) -> None:
    (kept[1] / "p.xml").write_text(POOL.format("dir").replace("/srv/p", "srv"))
    assert place("p", "v") is None


def test_a_disk_that_names_a_volume_is_a_disk_of_its_file(kept: tuple[Path, Path]) -> None:
    (kept[1] / "p.xml").write_text(POOL.format("dir"))
    disk = xmls.disk(kind="volume", source="pool='p' volume='v'")
    (used,) = uses(read(xmls.domain(disk).encode()))
    assert (used.path, used.write) == ("/srv/p/v", True)

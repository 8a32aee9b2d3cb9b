# SPDX-License-Identifier: GPL-2.0-or-later
"""What libvirt leaves in the file system is seen, and nothing of it is touched."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from virtwarden.service.traces import DomainFiles, is_locked


def write(path: Path, content: str) -> None:
    """As libvirt does: a new file in the old one's place."""
    new = path.with_suffix(".new")
    new.write_text(content)
    new.replace(path)


@pytest.mark.process
def test_a_daemons_lock_tells_that_it_lives(tmp_path: Path) -> None:
    file = tmp_path / "driver.pid"
    assert not is_locked(file)
    file.write_text("1")
    assert not is_locked(file)
    told, ending = os.pipe(), os.pipe()
    daemon = os.fork()
    if daemon == 0:
        with file.open("r+") as handle:
            fcntl.lockf(handle, fcntl.LOCK_EX)
            os.write(told[1], b".")
            os.close(ending[1])
            os.read(ending[0], 1)
            os._exit(0)
    os.read(told[0], 1)
    assert is_locked(file)
    os.close(ending[1])
    os.waitpid(daemon, 0)
    assert not is_locked(file)


@pytest.mark.process
def test_asking_for_a_lock_does_not_take_it(tmp_path: Path) -> None:
    file = tmp_path / "driver.pid"
    file.write_text("1")
    is_locked(file)
    child = os.fork()
    if child == 0:
        with file.open("r+") as handle:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_each_file_that_came_or_changed_is_told_once(tmp_path: Path) -> None:
    files = DomainFiles(tmp_path)
    assert files.changed() == []
    write(tmp_path / "web01.xml", "1")
    write(tmp_path / "a b.xml", "1")
    (tmp_path / "networks").mkdir()
    assert sorted(files.changed()) == ["a b", "web01"]
    assert files.changed() == []
    write(tmp_path / "web01.xml", "2")
    assert files.changed() == ["web01"]
    (tmp_path / "web01.xml").unlink()
    assert files.changed() == []
    write(tmp_path / "web01.xml", "3")
    assert files.changed() == ["web01"]


def test_a_change_in_the_clocks_same_tick_is_not_missed(tmp_path: Path) -> None:
    files = DomainFiles(tmp_path)
    write(tmp_path / "web01.xml", "1")
    files.changed()
    told = 0
    for number in range(200):
        write(tmp_path / f"{number}.xml", "")
        told += len(files.changed())
    assert told == 200


def test_a_directory_that_is_not_there_has_no_domains(tmp_path: Path) -> None:
    files = DomainFiles(tmp_path / "qemu")
    assert files.changed() == []
    (tmp_path / "qemu").mkdir()
    write(tmp_path / "qemu/web01.xml", "1")
    assert files.changed() == ["web01"]

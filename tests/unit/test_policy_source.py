# SPDX-License-Identifier: GPL-2.0-or-later
"""A policy file is read only where nobody but its owner could have written it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from virtwarden.errors import PolicyError
from virtwarden.paths import Paths
from virtwarden.policy import source

ME = os.getuid()
root_only = pytest.mark.skipif(ME != 0, reason="only root can give a file away")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    etc = tmp_path / "etc"
    (etc / "policy.d").mkdir(mode=0o755, parents=True)
    for directory in (etc, etc / "policy.d"):
        directory.chmod(0o755)
    made = Paths(policy=etc / "policy.toml", policy_dir=etc / "policy.d")
    for path in (made.policy, made.policy_dir / "a.toml"):
        path.write_text("# here")
        path.chmod(0o644)
    return made


def refusal(paths: Paths, owner: int = ME) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        source.read(paths, owner)
    return caught.value


def test_honest_files_are_read_in_order(paths: Paths) -> None:
    (paths.policy_dir / "Z.toml").write_text("# first")
    (paths.policy_dir / "Z.toml").chmod(0o400)
    found = source.read(paths, ME)
    assert [(Path(item.file).name, item.content) for item in found] == [
        ("policy.toml", b"# here"),
        ("Z.toml", b"# first"),
        ("a.toml", b"# here"),
    ]


def test_files_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    assert source.read(Paths(policy=tmp_path / "no" / "x", policy_dir=tmp_path / "none"), ME) == ()


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o646])
@pytest.mark.parametrize("name", ["policy.toml", "policy.d/a.toml", "policy.d", "."])
def test_what_others_may_write_is_refused(paths: Paths, name: str, mode: int) -> None:
    path = paths.policy.parent / name
    path.chmod(mode | 0o111 if path.is_dir() else mode)
    error = refusal(paths)
    assert error.where == str(path)
    assert f"chmod go-w {path}" in error.fix


def test_the_sticky_bit_does_not_help_a_directory_that_all_may_write(paths: Paths) -> None:
    paths.policy_dir.chmod(0o1777)
    assert "others than" in str(refusal(paths))


def test_a_writable_drop_in_directory_is_refused_even_where_it_is_empty(paths: Paths) -> None:
    (paths.policy_dir / "a.toml").unlink()
    paths.policy_dir.chmod(0o777)
    assert refusal(paths).where == str(paths.policy_dir)


@root_only
@pytest.mark.parametrize("name", ["policy.toml", "policy.d/a.toml", "policy.d", "."])
def test_what_belongs_to_another_is_refused(paths: Paths, name: str) -> None:
    path = paths.policy.parent / name
    os.chown(path, 65534, 65534)
    error = refusal(paths)
    assert error.where == str(path)
    assert f"chown root {path}" in error.fix


def test_files_of_the_wrong_owner_are_refused_whoever_runs_the_test(paths: Paths) -> None:
    assert f"belongs to uid {ME}, not to {ME + 1}" in str(refusal(paths, owner=ME + 1))


@pytest.mark.parametrize("name", ["policy.toml", "policy.d/a.toml", "policy.d"])
def test_a_symlink_is_not_followed(paths: Paths, name: str, tmp_path: Path) -> None:
    path = paths.policy.parent / name
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    error = refusal(paths)
    assert error.where == str(path)
    assert "symlink" in error.what


def test_a_symlink_to_nowhere_is_not_a_missing_file(paths: Paths) -> None:
    paths.policy.unlink()
    paths.policy.symlink_to("/nonexistent")
    assert "symlink" in refusal(paths).what


def test_a_fifo_is_refused_without_waiting_for_a_writer(paths: Paths) -> None:
    paths.policy.unlink()
    os.mkfifo(paths.policy, 0o600)
    assert "not a regular file" in refusal(paths).what


def test_a_directory_called_as_a_drop_in_is_refused(paths: Paths) -> None:
    (paths.policy_dir / "b.toml").mkdir(mode=0o755)
    assert "not a regular file" in refusal(paths).what


def test_a_file_where_the_drop_ins_should_be_is_refused(paths: Paths) -> None:
    (paths.policy_dir / "a.toml").unlink()
    paths.policy_dir.rmdir()
    paths.policy_dir.write_text("")
    assert "cannot be read" in refusal(paths).what


def test_a_file_of_the_largest_size_is_read(paths: Paths) -> None:
    paths.policy.write_bytes(b"#" * source.FILE_LIMIT_BYTES)
    assert len(source.read(paths, ME)[0].content) == source.FILE_LIMIT_BYTES


@pytest.mark.parametrize("size", [source.FILE_LIMIT_BYTES + 1, 300 * 1024])
def test_a_larger_file_is_refused(paths: Paths, size: int) -> None:
    paths.policy.write_bytes(b"#" * size)
    assert "larger than 256 KiB" in refusal(paths).what


@pytest.mark.parametrize("name", [b"a\n.toml", b"\xff.toml", b"\x1b[0m.toml"])
def test_a_drop_in_whose_name_could_fool_a_reader_is_refused(paths: Paths, name: bytes) -> None:
    with open(os.path.join(os.fsencode(paths.policy_dir), name), "w"):  # noqa: PTH118, PTH123
        pass
    assert str(refusal(paths)).isprintable()

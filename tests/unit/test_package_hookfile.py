# SPDX-License-Identifier: GPL-2.0-or-later
"""The hook is put where libvirt finds it, and what is an admin's is never touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from virtwarden.package import hookfile
from virtwarden.paths import Paths
from virtwarden.system import files

OURS, NEWER, THEIRS = (
    b"#!/bin/sh\n# ours\n",
    b"#!/bin/sh\n# ours, newer\n",
    b"#!/bin/sh\n# theirs\n",
)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(hooks=tmp_path / "hooks", state=tmp_path / "state", share=tmp_path / "share")


@pytest.fixture
def hook(paths: Paths) -> Path:
    return paths.hooks / "qemu"


@pytest.fixture
def beside(paths: Paths) -> Path:
    return paths.hooks / "qemu.d" / "virt-warden"


def put(paths: Paths, content: bytes = OURS) -> tuple[Path, bool]:
    source = paths.share / "hooks" / "qemu"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_bytes(content)
    return hookfile.place(paths, source)


def put_theirs(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(THEIRS)


def test_it_is_the_hook_where_there_is_none(paths: Paths, hook: Path) -> None:
    assert put(paths) == (hook, True)
    assert hook.read_bytes() == OURS
    assert hook.stat().st_mode & 0o777 == 0o755


def test_an_admins_hook_stays_and_ours_goes_beside_it(
    paths: Paths, hook: Path, beside: Path
) -> None:
    put_theirs(hook)
    assert put(paths) == (beside, True)
    assert (hook.read_bytes(), beside.read_bytes()) == (THEIRS, OURS)


def test_a_symlink_of_an_admins_stays_even_where_it_leads_nowhere(
    paths: Paths, hook: Path, beside: Path
) -> None:
    hook.parent.mkdir()
    hook.symlink_to("/nowhere")
    assert put(paths)[0] == beside
    assert hook.is_symlink()


def test_an_upgrade_takes_the_place_of_the_former(paths: Paths, hook: Path) -> None:
    put(paths)
    assert put(paths, NEWER) == (hook, False)
    assert hook.read_bytes() == NEWER


def test_an_admins_hook_in_our_place_stays_at_the_next_upgrade(
    paths: Paths, hook: Path, beside: Path
) -> None:
    put(paths)
    put_theirs(hook)
    assert put(paths, NEWER) == (beside, True)
    assert hook.read_bytes() == THEIRS
    assert put(paths, OURS) == (beside, False)


def test_ours_with_an_admins_edits_is_an_admins(paths: Paths, hook: Path, beside: Path) -> None:
    put(paths)
    hook.write_bytes(OURS + b"logger started\n")
    assert put(paths)[0] == beside
    hookfile.take_away(paths)
    assert hook.read_bytes() == OURS + b"logger started\n"


def test_it_is_taken_away_with_its_directory_where_that_was_ours_alone(
    paths: Paths, hook: Path, beside: Path
) -> None:
    put_theirs(hook)
    put(paths)
    hookfile.take_away(paths)
    assert [*paths.hooks.iterdir()] == [hook]
    assert not paths.hook_record.exists()


def test_hooks_of_an_admins_beside_it_stay(paths: Paths, hook: Path, beside: Path) -> None:
    put_theirs(hook)
    put_theirs(beside.parent / "theirs")
    put(paths)
    hookfile.take_away(paths)
    assert [*beside.parent.iterdir()] == [beside.parent / "theirs"]


def test_taking_away_what_is_gone_or_anothers_does_no_harm(paths: Paths, hook: Path) -> None:
    hookfile.take_away(paths)
    put(paths)
    hook.unlink()
    hookfile.take_away(paths)
    put(paths)
    put_theirs(hook)
    hookfile.take_away(paths)
    assert hook.read_bytes() == THEIRS


@pytest.mark.parametrize("step", [0, 1])
def test_a_crash_at_any_step_leaves_it_known_as_ours(
    paths: Paths, hook: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    put(paths)
    writes = iter(range(2))
    write = files.write_atomically

    def crash(path: Path, *rest: object, **options: object) -> None:
        if next(writes) == step:
            raise KeyboardInterrupt
        write(path, *rest, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomically", crash)
        with pytest.raises(KeyboardInterrupt):
            put(paths, NEWER)
    assert put(paths, NEWER) == (hook, False)


def test_with_its_record_lost_it_is_known_by_its_content(paths: Paths, hook: Path) -> None:
    put(paths)
    paths.hook_record.unlink()
    assert put(paths) == (hook, False)
    paths.hook_record.unlink()
    hookfile.take_away(paths)
    assert not hook.exists()


@pytest.mark.parametrize("record", ["", "{}", "[]", '{"path": 7}', "\udcff"])
def test_a_broken_record_makes_nobodys_hook_ours(
    paths: Paths, hook: Path, beside: Path, record: str
) -> None:
    put_theirs(hook)
    paths.state.mkdir()
    paths.hook_record.write_text(record, errors="surrogateescape")
    assert put(paths)[0] == beside


def test_the_hook_for_networks_has_a_place_and_a_record_of_its_own(
    paths: Paths, hook: Path
) -> None:
    put(paths)
    put_theirs(paths.hooks / "network")
    source = paths.share / "hooks" / "qemu"
    beside = paths.hooks / "network.d" / "virt-warden"
    assert hookfile.place(paths, source, "network") == (beside, True)
    assert hookfile.place(paths, source, "network") == (beside, False)
    hookfile.take_away(paths, "network")
    assert not beside.parent.exists()
    assert hookfile.placed(paths) == hook

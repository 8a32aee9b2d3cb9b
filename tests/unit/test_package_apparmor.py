# SPDX-License-Identifier: GPL-2.0-or-later
"""One line in each of AppArmor's local files, and just that line taken out again."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from virtwarden.errors import CommandError
from virtwarden.package import apparmor
from virtwarden.paths import Paths

PACKAGED = Path(__file__).parents[2] / "packaging"
PROFILE, ABSTRACTION = "usr.sbin.libvirtd", "abstractions/libvirt-qemu"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A host whose libvirt has a profile and an abstraction, with an empty local file each."""
    paths = Paths(apparmor=tmp_path / "apparmor.d", share=PACKAGED)
    for name in (PROFILE, ABSTRACTION):
        for path in (paths.apparmor / name, paths.apparmor / "local" / name):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return paths


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The profiles that the kernel was told to load."""
    profiles: list[str] = []
    monkeypatch.setattr(apparmor, "_load", lambda profile: profiles.append(profile.name))
    return profiles


def local(paths: Paths, name: str) -> Path:
    return paths.apparmor / "local" / name


@pytest.fixture
def drop_in(paths: Paths) -> Path:
    """Where the line of the abstraction goes, where libvirt's asks for drop-ins as Debian 13's."""
    include = f"  include if exists <{ABSTRACTION}.d>\n"
    (paths.apparmor / ABSTRACTION).write_text(f"{include}  include if exists <local/{ABSTRACTION}>")
    local(paths, ABSTRACTION).unlink()
    return paths.apparmor / f"{ABSTRACTION}.d" / "virt-warden"


def test_each_packaged_line_is_one_line_that_is_known_again() -> None:
    for _, line in apparmor._lines(Paths(share=PACKAGED)):
        assert "\n" not in line
        assert line.endswith(apparmor._MARK)
        rules = line.removesuffix(apparmor._MARK).strip()
        assert rules.endswith(",")


@pytest.mark.parametrize(
    "device",
    [
        "virtual/block/dm-0",
        "pci0000:00/0000:00:05.0/virtio1/block/vda",
        "pci0000:00/0000:00:06.0/nvme/nvme0/nvme0n1",
        "virtual/nvme-subsystem/nvme-subsys0/nvme0n1",
    ],
)
def test_qemu_may_read_what_it_asks_of_a_block_device_and_no_more(device: str) -> None:
    """libvirt's own abstraction lets it read `max_segments` alone, and that not of NVMe."""
    permitted = permits(PACKAGED / "apparmor" / ABSTRACTION)
    for asked in ("zoned", "max_segments", "chunk_sectors", "nr_zones", "physical_block_size"):
        assert permitted(f"/sys/devices/{device}/queue/{asked}") == "r"
    for other in ("queue/scheduler", "queue/", "uevent", "zoned", "queue/iosched/zoned"):
        assert permitted(f"/sys/devices/{device}/{other}") == ""


def permits(lines: Path) -> Callable[[str], str]:
    """How the file rules of one line of AppArmor's let a path be used."""
    words = lines.read_text().partition("#")[0].split()
    on_files = [(glob, use) for glob, use in pairwise(words) if glob.startswith("/")]
    rules = [(pattern(glob), use.strip(",")) for glob, use in on_files]
    return lambda path: "".join(use for glob, use in rules if glob.fullmatch(path))


def pattern(glob: str) -> re.Pattern[str]:
    """A glob of AppArmor's."""
    meanings = {"**": ".*", "*": "[^/]*", "{": "(?:", "}": ")", ",": "|"}
    parts = re.split(r"(\*\*|[*{},])", glob)
    return re.compile("".join(meanings.get(part, re.escape(part)) for part in parts))


@pytest.mark.parametrize("knows", [True, False])
def test_a_rule_on_user_namespaces_is_given_to_the_apparmor_that_knows_it(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, knows: bool
) -> None:
    monkeypatch.setattr(apparmor, "_knows_namespaces", lambda: knows)
    apparmor.permit(paths)
    assert (" userns," in local(paths, ABSTRACTION).read_text()) is knows
    assert " capability setpcap," in local(paths, ABSTRACTION).read_text()


def test_lines_of_an_admins_stay_where_they_are(paths: Paths) -> None:
    mine = "# mine\n\n  /srv/mine r,  # virt-warden would like that\n"
    for name in (PROFILE, ABSTRACTION):
        local(paths, name).write_text(mine)
    apparmor.permit(paths)
    for name in (PROFILE, ABSTRACTION):
        text = local(paths, name).read_text()
        assert text.startswith(mine)
        assert text.count("\n") == mine.count("\n") + 1
    apparmor.withdraw(paths)
    for name in (PROFILE, ABSTRACTION):
        assert local(paths, name).read_text() == mine


def test_where_libvirt_asks_for_drop_ins_one_is_made_and_goes_again(
    paths: Paths, drop_in: Path
) -> None:
    before = sorted(paths.apparmor.rglob("*"))
    apparmor.permit(paths)
    assert drop_in.read_text().count("\n") == 1
    assert not local(paths, ABSTRACTION).exists()
    apparmor.withdraw(paths)
    assert sorted(paths.apparmor.rglob("*")) == before


def test_a_drop_in_that_an_admin_added_to_and_those_beside_it_stay(
    paths: Paths, drop_in: Path
) -> None:
    apparmor.permit(paths)
    beside = drop_in.with_name("mine")
    beside.write_text("/srv/mine r,\n")
    drop_in.write_text(f"/srv/mine r,\n{drop_in.read_text()}")
    apparmor.withdraw(paths)
    assert drop_in.read_text() == beside.read_text() == "/srv/mine r,\n"


def test_a_line_from_before_libvirt_asked_for_drop_ins_is_taken_out_too(
    paths: Paths, request: pytest.FixtureRequest
) -> None:
    apparmor.permit(paths)
    ours = local(paths, ABSTRACTION).read_text()
    request.getfixturevalue("drop_in")
    local(paths, ABSTRACTION).write_text(ours)
    apparmor.permit(paths)
    apparmor.withdraw(paths)
    assert local(paths, ABSTRACTION).read_text() == ""


def test_twice_is_once(paths: Paths, loaded: list[str]) -> None:
    apparmor.permit(paths)
    once = local(paths, PROFILE).read_text()
    apparmor.permit(paths)
    assert local(paths, PROFILE).read_text() == once
    assert loaded == [PROFILE]


def test_a_line_of_a_former_version_is_replaced(paths: Paths) -> None:
    local(paths, PROFILE).write_text(f"/old PUx, {apparmor._MARK}\n")
    apparmor.permit(paths)
    assert "/old" not in local(paths, PROFILE).read_text()


def test_where_libvirt_has_no_profile_nothing_is_written(paths: Paths) -> None:
    (paths.apparmor / PROFILE).unlink()
    apparmor.permit(paths)
    assert local(paths, PROFILE).read_text() == ""
    assert not local(paths, "usr.sbin.virtqemud").exists()


def test_a_host_without_apparmor_is_left_alone(tmp_path: Path) -> None:
    paths = Paths(apparmor=tmp_path / "none", share=PACKAGED)
    assert apparmor.permit(paths) == []
    assert apparmor.withdraw(paths) == []
    assert not paths.apparmor.exists()


def test_a_profile_that_the_kernel_will_not_take_is_as_before_and_told(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(profile: Path) -> None:
        raise CommandError(f"{profile}: syntax error", fix="run it by hand", code=1, said="")

    monkeypatch.setattr(apparmor, "_load", refuse)
    local(paths, PROFILE).write_text("mine\n")
    (report,) = apparmor.permit(paths)
    assert "syntax error" in report
    assert local(paths, PROFILE).read_text() == "mine\n"

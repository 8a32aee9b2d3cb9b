# SPDX-License-Identifier: GPL-2.0-or-later
"""What an image's header says, and what is remembered of an image that a VM could write."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import xmls
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from virtwarden.domain.model import read
from virtwarden.domain.writing import remember, writable
from virtwarden.errors import HostError
from virtwarden.paths import Paths
from virtwarden.system import images, qcow2, written
from virtwarden.system.images import Image
from virtwarden.system.qcow2 import Header
from virtwarden.system.written import Written

BASE = Image("/srv/base.qcow2", "qcow2", is_device=False)


def header(
    base: bytes = b"", form: bytes = b"", version: int = 3, features: int = 0, snapshots: int = 0
) -> bytes:
    """A qcow2 header as QEMU writes it."""
    start = 104 if version > 2 else 72
    extensions = b""
    if form:
        padded = form.ljust(-(-len(form) // 8) * 8, b"\0")
        extensions = struct.pack(">II", 0xE2792ACA, len(form)) + padded
    extensions += bytes(8)
    place = start + len(extensions) if base else 0
    fixed = b"QFI\xfb" + struct.pack(">IQI", version, place, len(base))
    fixed = fixed.ljust(60, b"\0") + struct.pack(">I", snapshots)
    if version > 2:
        fixed = fixed.ljust(72, b"\0") + struct.pack(">Q", features)
        fixed = fixed.ljust(100, b"\0") + struct.pack(">I", start)
    return fixed.ljust(start, b"\0") + extensions + base


@pytest.mark.parametrize("version", [2, 3])
def test_a_header_tells_base_format_and_snapshots(tmp_path: Path, version: int) -> None:
    image = tmp_path / "a.qcow2"
    image.write_bytes(header(b"/srv/base", b"raw", version, snapshots=2))
    assert qcow2.read(str(image)) == Header("/srv/base", "raw", 2, has_data_file=False)
    assert not images.is_plain(str(image))
    image.write_bytes(header(version=version))
    assert qcow2.read(str(image)) == Header("", "", 0, has_data_file=False)
    assert images.is_plain(str(image))
    assert images.backing(str(image), "qcow2") is None


def test_data_in_another_file_is_told(tmp_path: Path) -> None:
    image = tmp_path / "a.qcow2"
    image.write_bytes(header(features=4))
    assert not images.is_plain(str(image))


@pytest.mark.parametrize(
    ("description", "image_format"),
    [
        ('{"driver": "file", "filename": "BASE"}', ""),
        ('{"file": {"driver": "file", "filename": "BASE"}}', ""),
        ('{"file.driver": "file", "file.filename": "BASE"}', ""),
        ('{"file.filename": "BASE"}', ""),
        ('{"driver": "qcow2", "file": {"driver": "file", "filename": "BASE"}}', "qcow2"),
        ('{"driver": "qcow2", "file.driver": "file", "file.filename": "BASE"}', "qcow2"),
        ('{"driver": "raw", "file": {"driver": "host_device", "filename": "BASE"}}', "raw"),
        ('{"driver": "qcow2", "file": {"driver": "raw", "file.filename": "BASE"}}', "qcow2"),
    ],
)
def test_a_base_that_is_described_is_the_file_in_the_description(
    tmp_path: Path, description: str, image_format: str
) -> None:
    image, base = tmp_path / "a.qcow2", tmp_path / "base"
    base.touch()
    name = f"json:{description.replace('BASE', str(base))}".encode()
    image.write_bytes(header(name, b"qcow2"))
    assert images.backing(str(image), "qcow2") == Image(str(base), "qcow2", is_device=False)
    assert images.named_base(str(image)) == str(base)
    image.write_bytes(header(name))
    if image_format:
        found = images.backing(str(image), "qcow2")
        assert found == Image(str(base), image_format, is_device=False)
    else:
        with pytest.raises(HostError, match="of which format") as error:
            images.backing(str(image), "qcow2")
        assert f"rebase -u -b {base} -F" in error.value.fix


@pytest.mark.parametrize(
    "description",
    [
        '{"driver": "raw", "offset": 512, "file": {"driver": "file", "filename": "/srv/base"}}',
        '{"file": {"driver": "file", "filename": "/srv/base", "locking": "off"}}',
        '{"driver": "qcow2", "backing": null, "file.filename": "/srv/base"}',
        '{"driver": "qcow2", "file.filename": "/srv/a", "backing": {"file.filename": "/srv/b"}}',
        '{"driver": "qcow2", "file.filename": "/srv/a", "filename": "/srv/b"}',
        '{"driver": "nbd", "host": "192.0.2.7", "export": "x"}',
        '{"driver": "https", "filename": "/srv/base"}',
        '{"file.driver": "luks", "file.file.filename": "/srv/base"}',
        '{"file.filename": "base"}',
        '{"file.filename": ["/srv/base"]}',
        '{"file.filename": "/srv/b\\u0000ase"}',
        '{"file": {"file": {"file": {"file": {"filename": "/srv/base"}}}}}',
        '{"file": {}}',
        '["/srv/base"]',
        "/srv/base",
        "[" * 500,
        "",
    ],
)
def test_a_description_of_anything_but_a_whole_file_of_this_host_is_refused(
    tmp_path: Path, description: str
) -> None:
    image = tmp_path / "a.qcow2"
    image.write_bytes(header(f"json:{description}".encode(), b"qcow2"))
    for ask in (lambda: images.backing(str(image), "qcow2"), lambda: images.named_base(str(image))):
        with pytest.raises(HostError, match="describes its base in a way") as error:
            ask()
        assert "qemu-img rebase -u -b BASE" in error.value.fix


def test_a_base_counts_from_its_images_directory(tmp_path: Path) -> None:
    image, base = tmp_path / "a.qcow2", tmp_path / "base"
    base.touch()
    for name in (b"base", b"./base", b"file:base", os.fsencode(base)):
        image.write_bytes(header(name, b"raw"))
        assert images.backing(str(image), "qcow2") == Image(str(base), "raw", is_device=False)
        assert images.named_base(str(image)) == str(base)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is no qcow2 image"),
        (bytes(200), "is no qcow2 image"),
        (header(b"/nowhere/base", b"raw"), "the base /nowhere/base of"),
        (header(b"a\0b", b"raw"), "embedded null"),
        (header(b"base"), "does not say of which format"),
        (header(b"x" * 2000, b"raw"), "in a way that QEMU does not"),
    ],
)
def test_a_header_that_tells_nothing_of_use_is_refused(
    tmp_path: Path, content: bytes, words: str
) -> None:
    image = tmp_path / "a.qcow2"
    image.write_bytes(content)
    with pytest.raises(HostError, match=words):
        images.backing(str(image), "qcow2")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300), st.booleans())
def test_whatever_a_guest_writes_there_it_is_read_or_refused(
    tmp_path: Path, content: bytes, is_headed: bool
) -> None:
    image = tmp_path / "a.qcow2"
    image.write_bytes((b"QFI\xfb\0\0\0\3" if is_headed else b"") + content)
    with suppress(HostError):
        qcow2.read(str(image))
        images.backing(str(image), "qcow2")


# What is remembered


@pytest.fixture
def image(tmp_path: Path) -> Written:
    file = tmp_path / "web01.qcow2"
    file.touch()
    return Written(xmls.UUID, str(file), "qcow2", BASE)


def test_it_is_remembered_under_any_name(tmp_path: Path, image: Written) -> None:
    directory = tmp_path / "written"
    assert written.look_up(directory, image.path) is None
    written.remember(directory, image)
    assert (directory.stat().st_mode & 0o777, len([*directory.iterdir()])) == (0o700, 1)
    moved = tmp_path / "moved.qcow2"
    Path(image.path).rename(moved)
    assert written.look_up(directory, str(moved)) == image


def test_the_last_that_was_said_counts_and_the_same_is_said_once(
    tmp_path: Path, image: Written
) -> None:
    directory = tmp_path / "written"
    flat = replace(image, base=None)
    for said in (image, image, flat, flat):
        written.remember(directory, said)
    (bucket,) = directory.iterdir()
    assert len(bucket.read_text().splitlines()) == 2
    assert written.look_up(directory, image.path) == flat
    written.remember(directory, image, first=True)
    assert written.look_up(directory, image.path) == flat


def test_a_line_that_a_crash_cut_off_takes_no_other_with_it(tmp_path: Path, image: Written) -> None:
    directory = tmp_path / "written"
    written.remember(directory, image)
    (bucket,) = directory.iterdir()
    whole = bucket.read_text()
    bucket.write_text(whole + whole[: len(whole) // 2])
    assert written.look_up(directory, image.path) == image
    flat = replace(image, base=None)
    written.remember(directory, flat)
    assert written.look_up(directory, image.path) == flat


def test_an_image_that_is_not_there_is_passed_over(tmp_path: Path, image: Written) -> None:
    Path(image.path).unlink()
    written.remember(tmp_path / "written", image)
    assert not (tmp_path / "written").exists()


def test_what_a_domain_writes_is_its_disks_and_its_own_images_below_them() -> None:
    own = xmls.base("/srv/old.qcow2").replace(xmls.UNLABELLED, "")
    found = read(
        xmls.domain(
            xmls.disk("/srv/top.qcow2", form="qcow2", inside=own)
            + xmls.disk("/srv/on.qcow2", form="qcow2", target="vdb", inside=xmls.base("/srv/b"))
            + xmls.disk("/srv/a.iso", target="sda", inside="<readonly/>")
            + xmls.disk("/srv/a.img", target="vdc")
            + xmls.disk("/srv/unsaid.qcow2", form="qcow2", target="vdd")
        ).encode()
    )
    told = {one.path: one for one in writable(found.uuid, found.disks)}
    assert [*told] == [
        *("/srv/top.qcow2", "/srv/old.qcow2", "/srv/on.qcow2", "/srv/a.img", "/srv/unsaid.qcow2"),
    ]
    assert told["/srv/top.qcow2"].base == Image("/srv/old.qcow2", "qcow2", is_device=False)
    assert told["/srv/on.qcow2"].base == Image("/srv/b", "qcow2", is_device=False)
    assert (told["/srv/a.img"].format, told["/srv/a.img"].base) == ("raw", None)
    assert [one.path for one in told.values() if not one.is_known] == ["/srv/unsaid.qcow2"]


def test_a_domain_that_does_not_run_as_its_own_user_is_not_remembered(
    tmp_path: Path, image: Written
) -> None:
    paths = Paths(state=tmp_path / "state")
    disk = xmls.disk(image.path)
    remember(paths, read(xmls.domain(disk, labels="").encode()))
    assert not paths.written.exists()
    remember(paths, read(xmls.domain(disk).encode()))
    assert written.look_up(paths.written, image.path) is not None

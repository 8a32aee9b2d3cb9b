# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's configuration: what it sets, and on which line; and what is mounted."""

from __future__ import annotations

from pathlib import Path

import pytest

from virtwarden.errors import HostError
from virtwarden.system import conf, mounts
from virtwarden.system.conf import Located

# Augeas looks for its library with ldconfig(8).
pytestmark = pytest.mark.process

EVERYWHERE = "0.0.0.0"  # noqa: S104 - it is only read
TEXT = f"""# vnc_listen = "1"
#vnc_listen = "2"

vnc_listen = "{EVERYWHERE}"
nvram = [ "/a:/b", "/c:/d" ]
seccomp_sandbox = 0
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "qemu.conf"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize(
    ("name", "value", "values", "line"),
    [
        ("vnc_listen", EVERYWHERE, (EVERYWHERE,), 4),
        ("nvram", ("/a:/b", "/c:/d"), ("/a:/b", "/c:/d"), 5),
        ("seccomp_sandbox", "0", ("0",), 6),
    ],
)
def test_a_setting_is_told_with_the_line_that_sets_it(
    file: Path, name: str, value: object, values: tuple[str, ...], line: int
) -> None:
    found = conf.setting(file, conf.QEMU, name)
    assert (found.value, found.values, found.where) == (value, values, f"{file}:{line}")
    assert conf.settings(file, conf.QEMU)[name] == value


def test_what_is_not_set_is_empty(file: Path, tmp_path: Path) -> None:
    for path in (file, tmp_path / "none"):
        found = conf.setting(path, conf.QEMU, "user")
        assert (found, found.values) == (Located(), ())


def test_an_edit_is_seen_at_once(file: Path) -> None:
    assert conf.setting(file, conf.QEMU, "vnc_listen").value == EVERYWHERE
    file.write_text(TEXT.replace(EVERYWHERE, "::1"))
    assert conf.setting(file, conf.QEMU, "vnc_listen").value == "::1"


def test_a_file_that_libvirt_cannot_read_is_an_error_with_its_line(file: Path) -> None:
    file.write_text("vnc_listen = \n")
    with pytest.raises(HostError, match=f"{file}:1"):
        conf.setting(file, conf.QEMU, "vnc_listen")


def test_where_file_systems_of_a_type_are_mounted(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 0:21 / /proc rw - proc proc rw\n"
        "30 1 0:30 / /dev/hugepages rw shared:5 - hugetlbfs hugetlbfs rw,pagesize=2M\n"
        "31 1 0:31 / /srv/huge\\040pages rw - hugetlbfs x rw\n"
        "32 1 0:31 / /dev/hugepages rw - hugetlbfs x rw\n"
    )
    assert mounts.of_type("hugetlbfs", table) == ("/dev/hugepages", "/srv/huge pages")

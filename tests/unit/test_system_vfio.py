# SPDX-License-Identifier: GPL-2.0-or-later
"""Which node QEMU opens for a device that it drives itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from virtwarden.system import vfio


@pytest.fixture
def devices(tmp_path: Path) -> tuple[Path, ...]:
    place = tmp_path / "devices" / "0000:65:00.0"
    place.mkdir(parents=True)
    (place / "iommu_group").symlink_to("../../../kernel/iommu_groups/7")
    return (tmp_path / "missing", tmp_path / "devices")


def test_a_device_is_opened_by_its_group(devices: tuple[Path, ...]) -> None:
    assert vfio.group("0000:65:00.0", devices) == "/dev/vfio/7"


@pytest.mark.parametrize("name", ["0000:66:00.0", "", ".", "..", "../0000:65:00.0", "a/b"])
def test_what_is_in_no_group_has_no_node(devices: tuple[Path, ...], name: str) -> None:
    assert vfio.group(name, devices) == ""

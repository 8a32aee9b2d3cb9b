# SPDX-License-Identifier: GPL-2.0-or-later
"""The audit of directories that a VM shares by virtiofs."""

from __future__ import annotations

import pytest

from virtwarden.audit import shares
from virtwarden.domain.model import Domain, Filesystem


def states(*filesystems: Filesystem) -> list[str]:
    domain = Domain(name="web01", filesystems=filesystems)
    return [item.state.value for item in shares.checks([domain])]


def share(driver: str = "virtiofs", socket: str = "", served_as: str = "") -> Filesystem:
    return Filesystem(directory="/srv", driver=driver, socket=socket, served_as=served_as)


@pytest.mark.parametrize("served_as", ["", "0"])
def test_one_that_root_serves_is_bad(served_as: str) -> None:
    assert states(share(served_as="100000"), share(served_as=served_as)) == ["bad"]


@pytest.mark.parametrize("found", [share(served_as="100000"), share(socket="/run/fs.sock")])
def test_one_that_another_user_serves_is_good(found: Filesystem) -> None:
    assert states(found) == ["good"]


def test_of_9p_it_says_nothing() -> None:
    assert states(share(driver="path")) == []

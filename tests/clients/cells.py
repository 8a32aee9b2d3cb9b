# SPDX-License-Identifier: GPL-2.0-or-later
"""How a test sees that a VM runs in its cell."""

from __future__ import annotations

from typing import Any

from tests.libvirt.warden import Warden

_FIRST_UID = 70000
"""Of the policy's default `uid_range`."""


def in_its_cell(warden: Warden, name: str) -> dict[str, Any]:
    """Assert that a running VM is a user of its own and keeps every promise; its standing.

    The uid and the capabilities are the kernel's word.
    """
    qemu = warden.qemu(name)
    standing = warden.status(name)
    assert standing["breaches"] == []
    assert {*qemu.uids} == {standing["uid"]}
    assert standing["uid"] >= _FIRST_UID
    assert (qemu.capabilities, qemu.no_new_privileges) == (0, True)
    return standing

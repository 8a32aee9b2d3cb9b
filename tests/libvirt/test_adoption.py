# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts that nobody enrolled: each VM gets its own user all the same."""

from __future__ import annotations

from pathlib import Path

from tests.host.domain import Disk, domain_xml
from tests.host.images import qcow2
from tests.host.service import Service
from tests.libvirt.warden import Warden


def _xml(name: str, *disks: Disk, **more: object) -> str:
    return domain_xml(name, disks=disks, emulator=None, **more)  # type: ignore[arg-type]


def _uids(pid: int) -> list[str]:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("Uid:")]
    return line.split()[1:]


def test_a_domain_that_is_only_created_runs_as_its_own_user(
    warden: Warden, service: Service, images: Path
) -> None:
    image = qcow2(images / "web01.qcow2")
    warden.libvirt.virsh("create", "/dev/stdin", stdin=_xml("web01", Disk(image)))
    uids = _uids(warden.libvirt.pid("web01"))
    assert set(uids) == {str(image.stat().st_uid)}
    assert int(uids[0]) >= 70000
    assert warden.status("web01")["breaches"] == []

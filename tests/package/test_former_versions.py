# SPDX-License-Identifier: GPL-2.0-or-later
"""What a former version wrote down, this one undoes: kept as it was written, never made anew.

`state-0.1.0` is /var/lib/virt-warden while a domain ran on an overlay, a disk, a shared base, a
CD-ROM and a kernel, with a NIC and a console.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from tests.host.command import run
from tests.libvirt.warden import Warden
from virtwarden.changes import KINDS, Scope, journal
from virtwarden.paths import Paths
from virtwarden.system import users

PATHS = Paths()
UUID = "b3d64a2b-8b6a-5164-bcec-3f7ba519d18c"
IMAGES = Path("/var/lib/libvirt/images")
FORMER = sorted(Path(__file__).parent.glob("state-*"))
# As they were before the domain started: owner and mode; then what each one was given.
BEFORE = {
    "web01.qcow2": (65534, 0o640),
    "data.img": (65534, 0o640),
    "base.qcow2": (0, 0o644),
    "install.iso": (0, 0o600),
    "vmlinuz": (0, 0o644),
}
OWN = ("web01.qcow2", "data.img")


def owner(name: str) -> tuple[int, int]:
    found = (IMAGES / name).stat()
    return found.st_uid, stat.S_IMODE(found.st_mode)


def as_it_ran(state: Path) -> None:
    """The host as that domain left it when the power went: its files, its user, its state."""
    users.create("vmw-web01", 70000, ("kvm",), UUID)
    for name in BEFORE:
        path = IMAGES / name
        path.touch()
        os.chown(path, *((70000, 70000) if name in OWN else (0, 0)))
        path.chmod(0o600)
        if name not in OWN:
            run("setfacl", "-m", "u:vmw-web01:r", str(path))
    run("setfacl", "-m", "u:vmw-web01:x", str(PATHS.libvirt_state))
    PATHS.domain_state(UUID).mkdir(parents=True)
    for name in ("run.journal", "enrolment.journal"):
        (PATHS.domain_state(UUID) / name).write_text(here(state / name))
    shutil.copy(state / "uids", PATHS.ledger)
    PATHS.shared.mkdir()
    for lease in (state / "shared").iterdir():
        (PATHS.shared / lease.name).write_text(here(lease))


def here(written: Path) -> str:
    """What was written, with this host's inode numbers; the rest is believed to be."""
    lines = []
    for line in written.read_text().splitlines():
        record = json.loads(line)
        place = record.get("change", record)
        if "number" in place:
            found = Path(place["path"]).stat()
            place |= {"device": found.st_dev, "number": found.st_ino}
        lines.append(json.dumps(record) + "\n")
    return "".join(lines)


@pytest.mark.parametrize("state", FORMER, ids=lambda path: path.name)
def test_what_a_former_version_did_is_undone(state: Path, warden: Warden) -> None:
    directory = run("getfacl", "-p", str(PATHS.libvirt_state)).stdout
    as_it_ran(state)
    warden.command("recover")
    assert {name: owner(name) for name in BEFORE} == BEFORE
    for name in BEFORE:
        assert "vmw-web01" not in run("getfacl", str(IMAGES / name)).stdout
    assert run("getfacl", "-p", str(PATHS.libvirt_state)).stdout == directory
    assert journal.records(PATHS, UUID) == []
    assert [*PATHS.shared.iterdir()] == []
    warden.libvirt.virsh("version")
    with journal.locked(PATHS, UUID):
        assert journal.undo(PATHS, UUID, Scope.ENROLMENT) == []
    assert users.account("vmw-web01") is None


def test_no_kind_of_change_that_a_former_version_wrote_is_gone() -> None:
    known = {
        json.loads(line)["kind"]
        for state in FORMER
        for name in ("run.journal", "enrolment.journal")
        for line in (state / name).read_text().splitlines()[1:]
    }
    assert len(known) >= 11
    assert known <= KINDS.keys()

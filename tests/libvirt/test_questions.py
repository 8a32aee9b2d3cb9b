# SPDX-License-Identifier: GPL-2.0-or-later
"""`explain`, `audit`, `check` and `status` answer, and change nothing on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.domain import Disk, Nic, Vnc
from tests.host.images import qcow2
from tests.libvirt.warden import ENFORCING, PATHS, Warden, set_policy
from virtwarden.changes import worked

MAC = "52:54:00:00:00:01"
# Who reaches the console is limited, so that this tool is asked after too.
POLICY = ENFORCING + '[console]\nadmin_workstations = ["192.0.2.7"]\n'
QUESTIONS = (
    ("explain", "web01"),
    ("explain", "web02"),
    ("audit",),
    ("audit", "--json"),
    ("check",),
    ("status",),
    ("status", "web01"),
)


def disk(images: Path) -> dict[str, tuple[int, ...]]:
    """Each file that a start makes or alters, by all that a write to it would change."""
    found = {}
    for tree in (PATHS.state, PATHS.run, PATHS.policy.parent, PATHS.udev_rules, images):
        for path in [tree, *tree.rglob("*")] if tree.exists() else ():
            status = path.lstat()
            found[str(path)] = (
                *(status.st_ino, status.st_mode, status.st_uid, status.st_gid, status.st_nlink),
                *(status.st_size, status.st_mtime_ns, status.st_ctime_ns),
            )
    return found


def forget_what_is_known() -> None:
    """Have nothing compiled and no tool tried, as after a boot and an edit of the policy."""
    set_policy(POLICY)
    PATHS.policy_cache.unlink(missing_ok=True)
    for note in (*PATHS.run.glob("*-works"), *PATHS.run.glob("*-limits-ports")):
        note.unlink()


@pytest.fixture
def asked(warden: Warden, images: Path, bridge: str) -> Warden:
    """web01 can be started, and runs if it is; web02 is off."""
    for name, mac in (("web01", MAC), ("web02", MAC[:-1] + "2")):
        image = Disk(qcow2(images / f"{name}.qcow2"))
        warden.enrolled(name, disks=[image], nics=[Nic(mac, bridge)], vnc=Vnc())
    return warden


@pytest.mark.parametrize("question", QUESTIONS, ids=" ".join)
def test_beside_a_domain_that_runs(asked: Warden, images: Path, question: tuple[str, ...]) -> None:
    asked.libvirt.start("web01")
    forget_what_is_known()
    before = disk(images)
    said = asked.command(*question, check=False)
    assert "Traceback" not in said.stderr
    assert disk(images) == before


@pytest.fixture
def fresh(asked: Warden) -> Iterator[Warden]:
    """The same domains, on a host that has no trace of virt-warden's but what is installed."""
    set_policy(POLICY)
    aside = {tree: tree.with_name(f"{tree.name}.aside") for tree in (PATHS.state, PATHS.run)}
    for tree, elsewhere in aside.items():
        tree.rename(elsewhere)
    yield asked
    for tree, elsewhere in aside.items():
        shutil.rmtree(tree, ignore_errors=True)
        elsewhere.rename(tree)


@pytest.mark.parametrize("question", QUESTIONS, ids=" ".join)
def test_where_nothing_ever_ran(fresh: Warden, images: Path, question: tuple[str, ...]) -> None:
    before = disk(images)
    assert not {str(PATHS.state), str(PATHS.run)} & before.keys()
    said = fresh.command(*question, check=False)
    assert "Traceback" not in said.stderr
    assert disk(images) == before


def test_what_a_start_learns_is_kept(asked: Warden) -> None:
    forget_what_is_known()
    assert not worked.has_filtered_taps(PATHS, "nftables")
    asked.libvirt.start("web01")
    assert worked.has_filtered_taps(PATHS, "nftables")
    assert worked.has_limited_ports(PATHS, "nftables")
    assert PATHS.policy_cache.exists()

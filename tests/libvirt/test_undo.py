# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever is killed, at whatever moment: in the end the host is what it was before the start."""

from __future__ import annotations

import io
import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from tests.host import mounts, network
from tests.host.command import run
from tests.host.domain import Disk, Nic, Vnc
from tests.host.images import qcow2, raw
from tests.host.libvirt import Libvirt
from tests.host.syslog import Syslog
from tests.host.tap import open_tap
from tests.libvirt import faults
from tests.libvirt.snapshots import make_base_chains, snapshot
from tests.libvirt.warden import (
    ENFORCING,
    LEFT_ALONE,
    PATHS,
    Warden,
    damaged_authority,
    kill,
    set_policy,
    until,
)
from virtwarden import hook
from virtwarden.changes import journal
from virtwarden.cli.recover import recover
from virtwarden.domain.model import read
from virtwarden.guards.pathways import libvirts_for_domains, libvirts_own
from virtwarden.system import users

HOOKS = Path("/etc/libvirt/hooks")
MAC = "52:54:00:00:00:01"
QUEUES = 2
TAP = "tap-web01"
START = ("prepare", "start", "started")


@dataclass(frozen=True)
class Guest:
    """A domain with something of everything, and the host as it is while it does not run.

    It is the same for all tests here: whatever they do to it, in the end the host is as before.
    """

    warden: Warden
    images: Path
    uuid: str
    before: dict[str, str]

    name = "web01"

    def host(self) -> dict[str, str]:
        return host(self.images)


def host(images: Path) -> dict[str, str]:
    """All that a start of a domain with these images could alter.

    Except whose libvirt's own directories are: it gives them to its user whenever it starts.
    """
    found = snapshot([images, PATHS.run, PATHS.state, PATHS.libvirt_state])
    state, *others = (*libvirts_own(PATHS), *libvirts_for_domains(PATHS))
    found = {path: what for path, what in found.items() if path not in others}
    return found | {state: found[state].replace(" 0:", " 64055:", 1)}


def parts(images: Path, bridge: str) -> dict[str, object]:
    """What a domain consists of, every kind of change among what it asks for."""
    closed = images / "closed"
    closed.mkdir(mode=0o700)
    base = qcow2(images / "base.qcow2", mode=0o644)
    overlay = qcow2(closed / "overlay.qcow2", backing=base, mode=0o640)
    kernel = images / "vmlinuz"
    shutil.copy("/usr/lib/ipxe/ipxe.lkrn", kernel)
    iso = raw(images / "install.iso", mode=0o444)
    os.chown(overlay, 1234, 5678)
    return {
        "disks": [
            Disk(overlay),
            Disk(iso, target="sda", format="raw", readonly=True, device="cdrom"),
        ],
        "kernel": kernel,
        "nics": [Nic(MAC, bridge, queues=QUEUES)],
        "vnc": Vnc(),
    }


@pytest.fixture(scope="module")
def only_guest(libvirt: Libvirt) -> Iterator[Guest]:
    images = Path("/var/lib/libvirt/images/undo")
    images.mkdir(mode=0o711)
    set_policy(ENFORCING)
    warden = Warden(libvirt)
    make_base_chains()
    with network.bridge("br-undo") as bridge:
        warden.started(Guest.name, **parts(images, bridge))
        uuid = warden.status(Guest.name)["uuid"]
        libvirt.destroy(Guest.name)
        yield Guest(warden, images, uuid, host(images))
        libvirt.remove_domains()
    set_policy(LEFT_ALONE)


@pytest.fixture
def guest(only_guest: Guest) -> Guest:
    assert only_guest.host() == only_guest.before, "another test left something"
    return only_guest


@pytest.fixture
def faulty_hook() -> Iterator[None]:
    """libvirt's hook is one with a fuse in it."""
    kept = HOOKS / ".kept"
    (HOOKS / "qemu").rename(kept)
    (HOOKS / "qemu").write_text(faults.HOOK)
    (HOOKS / "qemu").chmod(0o755)
    yield
    kept.replace(HOOKS / "qemu")


@pytest.fixture
def given(guest: Guest) -> Iterator[dict[str, bytes]]:
    """The XML that libvirt gave the hook at each step of a start and a stop, with its tap."""
    recorder = HOOKS / "qemu.d" / "recorder"
    recorder.parent.mkdir(exist_ok=True)
    recorder.write_text(f'#!/bin/sh\ncat > "{guest.images}/$2.xml"\n')
    recorder.chmod(0o755)
    guest.warden.libvirt.start(guest.name)
    guest.warden.libvirt.destroy(guest.name)
    recorder.unlink()
    recorder.parent.rmdir()
    found = {op: (guest.images / f"{op}.xml") for op in (*START, "release")}
    xml = {op: file.read_bytes() for op, file in found.items()}
    for file in guest.images.glob("*.xml"):
        file.unlink()
    yield xml
    run("ip", "link", "delete", tap_of(xml["start"]), check=False)


def tap_of(xml: bytes) -> str:
    return read(xml).nics[0].tap


def called(op: str, xml: bytes) -> int:
    """Have a process of its own answer libvirt's call; how it ended, as in os.waitstatus."""
    if op == "start":
        # One that is there until it is removed, as where somebody took it along.
        run("ip", "tuntap", "add", tap_of(xml), "mode", "tap", "multi_queue", check=False)
    child = os.fork()
    if child == 0:
        for _ in range(QUEUES if op == "start" else 0):
            open_tap(tap_of(xml))  # as libvirt has it
        faults.burn(op)
        os._exit(
            hook.main(["web01", op, "begin", "-"], io.BytesIO(xml), io.BytesIO(), io.StringIO())
        )
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


KILLED = -signal.SIGKILL
# Steps of a start at least, each change written down and then done.
MANY = 30


def test_a_hook_killed_at_any_step_of_a_real_start_leaves_nothing(
    guest: Guest, faulty_hook: None
) -> None:
    """libvirt then gives the start up and calls the release, which is another process."""
    killed = set()
    for step in itertools.count(1):
        faults.light(step, *START)
        done = guest.warden.libvirt.virsh("start", guest.name, check=False)
        if not faults.blown():
            break
        assert done.returncode != 0, faults.blown()
        assert guest.host() == guest.before, faults.blown()
        killed.add(faults.blown().partition(":")[0])
    # At `started` root takes the directories with libvirt's sockets.
    assert killed == {"prepare", "start", "started"}
    assert done.returncode == 0
    guest.warden.libvirt.destroy(guest.name)
    assert guest.host() == guest.before


def by_next_start(given: dict[str, bytes]) -> None:
    for op in ("prepare", "release"):
        assert called(op, given[op]) == 0


def by_recover(given: dict[str, bytes]) -> None:
    assert recover(PATHS, []) == 0


@pytest.mark.parametrize("mended", [by_next_start, by_recover])
def test_a_hook_killed_at_any_step_and_no_release_leaves_nothing_in_the_end(
    guest: Guest, given: dict[str, bytes], mended: Callable[[dict[str, bytes]], None]
) -> None:
    """As when libvirtd was killed too, and could not call it."""
    left_over = 0
    for step in itertools.count(1):
        faults.light(step, *START)
        for op in START:
            if called(op, given[op]) == KILLED:
                break
        if not faults.blown():
            break
        left_over += guest.host() != guest.before
        mended(given)
        assert guest.host() == guest.before, faults.blown()
    assert step > left_over > MANY
    called("release", given["release"])


def test_a_release_killed_at_any_step_is_finished_later(
    guest: Guest, given: dict[str, bytes]
) -> None:
    for step in itertools.count(1):
        faults.light(0)
        for op in START:
            assert called(op, given[op]) == 0
        assert guest.host() != guest.before
        faults.light(step, "release")
        if called("release", given["release"]) != KILLED:
            break
        by_recover(given)
        assert guest.host() == guest.before, faults.blown()
    assert step > MANY // 2
    assert guest.host() == guest.before


def test_a_first_start_killed_while_it_makes_the_user_leaves_none_after_unenrolment(
    guest: Guest, faulty_hook: None
) -> None:
    warden, name = guest.warden, "first"
    for step in itertools.count(1):
        warden.enrolled(name)
        faults.light(step, "prepare")
        warden.libvirt.virsh("start", name, check=False)
        warden.command("unenrol", name)
        assert guest.host() == guest.before, faults.blown()
        if "directory" in faults.blown():
            break
    # The journal's header, the record and the user; only then comes what is the run's own.
    assert step > 3
    warden.libvirt.undefine(name)


def test_a_release_may_come_again(guest: Guest) -> None:
    xml = guest.warden.libvirt.xml(guest.name)
    guest.warden.libvirt.start(guest.name)
    assert guest.host() != guest.before
    guest.warden.libvirt.destroy(guest.name)
    for _ in range(2):
        run(str(HOOKS / "qemu"), guest.name, "release", "end", "-", stdin=xml)
        assert guest.host() == guest.before


def test_a_qemu_that_is_killed_leaves_nothing(guest: Guest) -> None:
    guest.warden.libvirt.start(guest.name)
    guest.warden.kill(guest.name)
    guest.warden.await_release(guest.uuid)
    assert guest.host() == guest.before


def test_a_process_that_the_vms_user_left_behind_ends_with_the_vm(guest: Guest) -> None:
    guest.warden.libvirt.start(guest.name)
    account = users.account(f"vmw-{guest.name}")
    assert account is not None
    with subprocess.Popen(
        ["sleep", "infinity"], user=account.uid, group=account.gid, start_new_session=True
    ) as stray:
        guest.warden.libvirt.destroy(guest.name)
        assert stray.wait(20) == KILLED


class TestLibvirtdKilled:
    def test_while_the_vm_runs_it_stays_guarded_and_its_stop_undoes_all(
        self, guest: Guest, syslog: Syslog
    ) -> None:
        guest.warden.libvirt.start(guest.name)
        running = guest.warden.status(guest.name)
        syslog.clear()
        guest.warden.libvirt.kill()
        guest.warden.libvirt.restart()
        assert f"pid={running['pid']}" in syslog.wait_for("event=verified", timeout=20)
        again = guest.warden.status(guest.name)
        for status in (running, again):
            del status["process"]["open files"]  # libvirt's connections among them
        assert again == running
        guest.warden.libvirt.destroy(guest.name)
        assert guest.host() == guest.before

    def test_and_qemu_too_is_undone_when_libvirtd_is_back(self, guest: Guest) -> None:
        guest.warden.libvirt.start(guest.name)
        pid = guest.warden.qemu(guest.name).pid
        guest.warden.libvirt.kill()
        kill(pid)
        guest.warden.libvirt.restart()
        guest.warden.await_release(guest.uuid)
        assert guest.host() == guest.before

    def test_while_the_hook_works_is_shown_by_status_and_undone_by_recover(
        self, guest: Guest
    ) -> None:
        with journal.locked(PATHS, guest.uuid):
            start = ["virsh", "-q", "-c", "qemu:///system", "start", guest.name]
            with subprocess.Popen(start, stderr=subprocess.DEVNULL) as starting:
                try:
                    until(lambda: bool(hooks_at_work()))
                finally:  # or the start would wait for the lock for ever
                    guest.warden.libvirt.kill()
            assert starting.returncode != 0
        until(lambda: not hooks_at_work())
        guest.warden.libvirt.restart()
        assert "left over from its last run" in guest.warden.status(guest.name)["breaches"][0]
        guest.warden.command("recover")
        assert guest.warden.status(guest.name)["breaches"] == []
        assert guest.host() == guest.before


def hooks_at_work() -> list[str]:
    done = run("pgrep", "-f", f"{HOOKS}/qemu .* prepare", check=False)
    return done.stdout.split()


class TestRefusedStarts:
    def test_by_a_guard_before_anything_exists(self, guest: Guest) -> None:
        set_policy(f"{ENFORCING}[console]\nlisten = []\n")
        assert "VNC would listen" in guest.warden.refusal(guest.name)
        set_policy(ENFORCING)
        assert guest.host() == guest.before

    def test_by_a_change_that_fails_in_the_middle(self, guest: Guest) -> None:
        """By then the user, the disks and the claims are there."""
        with damaged_authority():
            line = guest.warden.refusal(guest.name)
        assert f"the console CA in {PATHS.console_ca} is damaged" in line
        assert guest.host() == guest.before

    def test_by_a_guard_once_the_tap_is_there(self, guest: Guest, faulty_hook: None) -> None:
        """A tap that something else took away in between."""
        (HOOKS / "qemu").write_text(
            f'#!/bin/sh\n[ "$2" != start ] || ip link delete "{TAP}"\nexec {HOOKS}/.kept "$@"\n'
        )
        xml = guest.warden.libvirt.xml(guest.name, "--inactive")
        named = xml.replace(
            "<model type='virtio'/>", f"<model type='virtio'/><target dev='{TAP}'/>"
        )
        guest.warden.libvirt.define(named)
        assert "no tap on a bridge" in guest.warden.refusal(guest.name)
        assert guest.host() == guest.before

    def test_by_the_wrapper(self, guest: Guest, faulty_hook: None) -> None:
        """Its ticket is another user's by the time that it runs."""
        ticket = PATHS.cell(guest.uuid) / "ticket.json"
        (HOOKS / "qemu").write_text(
            f'#!/bin/sh\n{HOOKS}/.kept "$@" || exit 1\n[ "$2" != start ] || chown nobody {ticket}\n'
        )
        assert "its ticket could be forged" in guest.warden.refusal(guest.name)
        assert guest.host() == guest.before

    def test_by_qemu_itself(self, guest: Guest) -> None:
        overlay = guest.images / "closed" / "overlay.qcow2"
        good = overlay.read_bytes()
        overlay.write_bytes(bytes(len(good)))
        done = guest.warden.libvirt.virsh("start", guest.name, check=False)
        assert "not in qcow2 format" in done.stderr
        overlay.write_bytes(good)
        assert guest.host() == guest.before


class TestReboot:
    """Power is cut while the VM runs: what was in memory is gone, files are as they were then."""

    @pytest.fixture
    def rebooted(self, guest: Guest, tmp_path: Path) -> Iterator[Guest]:
        guest.warden.libvirt.start(guest.name)
        pid = guest.warden.qemu(guest.name).pid
        guest.warden.libvirt.kill()
        kill(pid)
        run("nft", "flush", "ruleset")
        make_base_chains()
        shutil.rmtree(PATHS.run)
        for file in PATHS.libvirt_run.glob(f"{guest.name}.*"):
            file.unlink()
        with another_boot(tmp_path):
            guest.warden.libvirt.restart()
            yield guest
            guest.warden.libvirt.kill()
        guest.warden.libvirt.restart()
        # /run as it is once a domain was started, and libvirt's state without what it forgot.
        make_base_chains()
        guest.warden.libvirt.start(guest.name)
        guest.warden.libvirt.destroy(guest.name)
        for directory in PATHS.libvirt_state.rglob("domain-*"):
            shutil.rmtree(directory)

    def test_status_tells_what_is_left_and_recover_undoes_it(self, rebooted: Guest) -> None:
        assert lasting(rebooted.host()) != lasting(rebooted.before)
        assert "left over" in rebooted.warden.status(rebooted.name)["breaches"][0]
        rebooted.warden.command("recover")
        assert lasting(rebooted.host()) == lasting(rebooted.before)

    def test_the_next_start_undoes_what_is_left(self, rebooted: Guest) -> None:
        rebooted.warden.libvirt.start(rebooted.name)
        assert rebooted.warden.status(rebooted.name)["breaches"] == []
        rebooted.warden.libvirt.destroy(rebooted.name)
        assert lasting(rebooted.host()) == lasting(rebooted.before)


def lasting(found: dict[str, str]) -> dict[str, str]:
    """What a reboot leaves, without what libvirt itself leaves of a power cut."""
    return {
        path: state
        for path, state in found.items()
        if not path.startswith((str(PATHS.run), "nftables", "ebtables"))
        and not (path.startswith(str(PATHS.libvirt_state)) and "/domain-" in path)
    }


@contextmanager
def another_boot(scratch: Path) -> Iterator[None]:
    """Whoever asks is told of another boot, a minute later than this one."""
    boot_id = "/proc/sys/kernel/random/boot_id"
    (scratch / "boot_id").write_text(f"{uuid4()}\n")
    run("mount", "--bind", str(scratch / "boot_id"), boot_id)
    record = Path("/run/utmp").read_bytes()
    mounts.record_boot(int(time.time()) + 60)
    try:
        yield
    finally:
        run("umount", boot_id)
        Path("/run/utmp").write_bytes(record)

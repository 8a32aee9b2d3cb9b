# SPDX-License-Identifier: GPL-2.0-or-later
"""A tap is its VM's alone: nobody is at it before the VM, and nobody keeps it after."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from tests.host.command import run
from tests.host.domain import Nic
from tests.host.intruder import NOBODY, intruder
from tests.host.tap import open_tap
from tests.libvirt.warden import PATHS, Warden, until
from tests.libvirt.wire import plain, wire
from virtwarden.gate.foreign import foreign_taps
from virtwarden.system import taps

OWN, VICTIM = "52:54:00:00:00:01", "52:54:00:00:00:03"
TAP = "raced"
# pidfd_getfd(2)
PIDFD_GETFD = 438


def is_there(tap: str) -> bool:
    return Path("/sys/class/net", tap).exists()


@pytest.mark.parametrize("deeds", [(), ("undumpable",), ("owner",), ("hide",), ("persist",)])
def test_a_start_whose_tap_somebody_took_first_is_refused_and_names_them(
    warden: Warden, bridge: str, deeds: tuple[str, ...]
) -> None:
    warden.enrolled("web01", nics=[Nic(OWN, bridge, queues=2, tap=TAP)])
    with intruder(TAP, *deeds) as thief:
        line = warden.refusal("web01")
        assert thief.says() == "won"
        assert "somebody else is at tap" in line
        shown = f"pid {thief.pid}, uid {NOBODY}" if "hide" not in deeds else "no process shows it"
        assert shown in line
        assert not is_there(TAP)
    warden.libvirt.start("web01")
    assert warden.status("web01")["breaches"] == []


def test_who_let_a_tap_go_before_the_vm_got_it_has_no_way_back(warden: Warden, bridge: str) -> None:
    warden.enrolled("web01", nics=[Nic(OWN, bridge, queues=2, tap=TAP)])
    with intruder(TAP, "owner", "persist", "close") as thief:
        warden.libvirt.start("web01")
        assert thief.says() == "won"
        assert thief.attach_again().startswith("PermissionError")
        assert warden.status("web01")["breaches"] == []
        warden.libvirt.destroy("web01")
        until(lambda: not is_there(TAP))


@pytest.mark.parametrize("queues", [None, 1, 2, 4])
@pytest.mark.parametrize("model", ["virtio", "e1000"])
def test_a_vm_has_all_its_queues_and_is_heard(
    warden: Warden, bridge: str, queues: int | None, model: str
) -> None:
    warden.started("web01", nics=[Nic(OWN, bridge, queues=queues, model=model, tap=TAP)])
    tap = taps.find(TAP)
    assert tap is not None
    found = taps.standing(tap)
    assert found is not None
    assert found.queues == ((queues or 1) if model == "virtio" else 1)
    assert warden.status("web01")["breaches"] == []
    if found.queues > 1:
        assert found.owner == 0
        with wire(warden.libvirt, "web01", OWN, bridge) as tap_wire:
            assert tap_wire.passes(plain(OWN), plain(VICTIM)) == [plain(OWN)]


def test_a_tap_that_a_process_took_along_is_gone_after_the_stop(
    warden: Warden, bridge: str
) -> None:
    warden.started("web01", nics=[Nic(OWN, bridge, queues=2, tap=TAP)])
    pid = warden.libvirt.pid("web01")
    (first, *_) = [
        int(handle.name)
        for handle in Path(f"/proc/{pid}/fd").iterdir()
        if str(handle.readlink()) == "/dev/net/tun"
    ]
    queue = ctypes.CDLL(None).syscall(PIDFD_GETFD, os.pidfd_open(pid), first, 0)
    try:
        warden.libvirt.destroy("web01")
        until(lambda: not is_there(TAP))
        with pytest.raises(OSError, match="bad state"):
            os.write(queue, bytes(12) + plain(VICTIM))
    finally:
        os.close(queue)


def test_a_tap_that_a_user_holds_is_not_foreign_and_one_that_root_holds_is() -> None:
    held = open_tap("held")
    try:
        assert "held" in [tap.name for tap in foreign_taps(taps.every(), PATHS.libvirt_run)]
        with intruder("held", "undumpable") as thief:
            assert thief.says() == "won"
            found = [tap.name for tap in foreign_taps(taps.every(), PATHS.libvirt_run)]
            assert "held" not in found
    finally:
        os.close(held)
        run("ip", "link", "delete", "held", check=False)


def test_somebody_else_who_has_a_running_vms_tap_open_is_a_breach(
    warden: Warden, bridge: str
) -> None:
    warden.started("web01", nics=[Nic(OWN, bridge, queues=2, tap=TAP)])
    queue = open_tap(TAP)
    os.set_inheritable(queue, True)
    try:
        child = os.fork()
        if child == 0:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            while True:
                os.read(queue, 2048)
        until(lambda: f"uid {NOBODY}" in " ".join(warden.status("web01")["breaches"]))
        (breach,) = warden.status("web01")["breaches"]
        assert f"somebody else has tap {TAP} open: pid {child}, uid {NOBODY}" in breach
        os.kill(child, 9)
        os.waitpid(child, 0)
    finally:
        os.close(queue)
    assert warden.status("web01")["breaches"] == []

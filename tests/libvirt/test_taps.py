# SPDX-License-Identifier: GPL-2.0-or-later
"""A tap is its VM's alone: nobody is at it before the VM, and nobody keeps it after."""

from __future__ import annotations

import ctypes
import os
import socket
from pathlib import Path

import pytest

from tests.host.command import run
from tests.host.domain import Nic, domain_xml
from tests.host.intruder import NOBODY, intruder
from tests.host.tap import open_tap
from tests.libvirt.test_gate import arrived, hears, listening, plug
from tests.libvirt.warden import ENFORCING, PATHS, Warden, as_user, set_policy, until
from tests.libvirt.wire import plain, wire
from virtwarden.gate.foreign import foreign_taps
from virtwarden.system import taps

OWN, PLUGGED, VICTIM = "52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:03"
TAP = "raced"
# pidfd_getfd(2)
PIDFD_GETFD = 438


def is_there(tap: str) -> bool:
    return Path("/sys/class/net", tap).exists()


def dropped(tap: str) -> int:
    """How many frames the tap itself did not hand to its VM."""
    return int(Path("/sys/class/net", tap, "statistics/tx_dropped").read_text())


@pytest.mark.parametrize(
    "deeds",
    [
        (),
        ("undumpable",),
        ("headless",),
        ("apart",),
        ("owner",),
        ("rootly",),
        ("hide",),
        ("persist",),
        ("rootly", "hide"),
        ("disabled",),
    ],
)
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


@pytest.mark.parametrize("owner", ["owner", "rootly"])
def test_who_let_a_tap_go_before_the_vm_got_it_has_no_way_back(
    warden: Warden, bridge: str, owner: str
) -> None:
    deeds = ("deaf", "unplugged", "renamed", owner)
    warden.enrolled("web01", nics=[Nic(OWN, bridge, queues=2, tap=TAP)])
    with intruder(TAP, *deeds, "persist", "close") as thief:
        warden.libvirt.start("web01")
        assert thief.says() == "won"
        assert thief.attach_again().startswith("PermissionError")
        assert warden.status("web01")["breaches"] == []
        interface = Path("/sys/class/net", TAP)
        assert (interface / "address").read_text().strip() == f"fe{OWN[2:]}"
        assert (interface / "carrier").read_text().strip() == "1"
        with listening(bridge) as (listener, other):
            before = dropped(TAP)
            assert hears(TAP, listener, other)
            assert dropped(TAP) == before
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
        assert found.is_roots
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


@pytest.mark.parametrize("deeds", [("undumpable",), ("headless",), ("hide",)])
def test_a_tap_that_a_user_holds_is_not_foreign_and_one_that_root_holds_is(
    deeds: tuple[str, ...],
) -> None:
    held = open_tap("held")
    try:
        with intruder("held", *deeds) as thief:
            assert thief.says() == "won"
            taps.keep_for_root("held")
            assert "held" not in [tap.name for tap in foreign_taps(taps.every(), PATHS.libvirt_run)]
        assert "held" in [tap.name for tap in foreign_taps(taps.every(), PATHS.libvirt_run)]
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


def test_a_queue_of_a_running_vms_tap_that_no_process_shows_is_a_breach(
    warden: Warden, bridge: str
) -> None:
    warden.started("web01", nics=[Nic(OWN, bridge, queues=2, tap=TAP)])
    queue = open_tap(TAP)
    here, there = socket.socketpair()
    with here, there:
        socket.send_fds(here, [b"x"], [queue])
        os.close(queue)
        (breach,) = warden.status("web01")["breaches"]
        assert f"tap {TAP}: it has 3 queues, its domain 2" in breach
        assert "no process shows it" in breach
    assert warden.status("web01")["breaches"] == []


@pytest.mark.parametrize("deeds", [(), ("hide",)])
def test_a_permissive_vm_whose_tap_somebody_took_starts_and_is_filtered_and_told(
    warden: Warden, bridge: str, deeds: tuple[str, ...]
) -> None:
    set_policy(f'mode = "permissive"\n{ENFORCING}')
    warden.enrolled("web01", nics=[Nic(OWN, bridge, queues=2, tap=TAP)])
    with intruder(TAP, *deeds) as thief:
        warden.libvirt.start("web01")
        assert thief.says() == "won"
        shown = f"uid {NOBODY}" if not deeds else "no process shows it"
        assert shown in " ".join(warden.status("web01")["breaches"])
        with wire(warden.libvirt, "web01", OWN, bridge) as tap_wire:
            assert tap_wire.passes(plain(VICTIM), plain(OWN)) == [plain(OWN)]
        warden.libvirt.destroy("web01")
        until(lambda: not is_there(TAP))


def test_a_nic_whose_tap_somebody_took_when_it_was_plugged_in_stays_shut_out(
    warden: Warden, bridge: str
) -> None:
    warden.started("web01", nics=[Nic(OWN, bridge, queues=2)])
    with listening(bridge) as (listener, other):
        with intruder(TAP) as thief:
            plug(warden.libvirt, "web01", PLUGGED, bridge, TAP)
            assert thief.says() == "won"
            refused = warden.command("network", "admit", check=False)
            assert refused.returncode == 1
            assert f"(pid {thief.pid}, uid {NOBODY}, " in refused.stderr
            assert f"kill {thief.pid};" in refused.stderr
            warden.command("network", "restore")
            assert arrived(TAP, plain(PLUGGED), listener, other) == []
        warden.command("network", "admit")
        assert arrived(TAP, plain(PLUGGED), listener, other) == [plain(PLUGGED)]
    assert warden.status("web01")["breaches"] == []


def test_a_tap_that_was_never_let_in_is_gone_after_the_stop(warden: Warden, bridge: str) -> None:
    warden.started("web01", nics=[Nic(OWN, bridge, queues=2)])
    with intruder(TAP, "persist", "hide") as thief:
        plug(warden.libvirt, "web01", PLUGGED, bridge, TAP)
        assert thief.says() == "won"
        assert warden.command("network", "admit", check=False).returncode == 1
        warden.libvirt.destroy("web01")
        until(lambda: not is_there(TAP))


UNMANAGED = 'managed = ["*", "!theirs"]\n'
DISABLED = f'{ENFORCING}[[domain]]\nmatch = "theirs"\nmode = "disabled"\n'


_MANAGED = {
    "enforcing": ENFORCING,
    "permissive": f'{ENFORCING}[[domain]]\nmatch = "evil"\nmode = "permissive"\n',
    "no": 'managed = ["web*"]\n',
}


@pytest.mark.parametrize("managed", _MANAGED)
def test_a_vm_keeps_its_tap_that_another_domain_names(
    warden: Warden, bridge: str, managed: str
) -> None:
    """With `managed='no'` libvirt joins a tap of several queues, whoever it belongs to."""
    set_policy(_MANAGED[managed])
    warden.started("web01", nics=[Nic(OWN, bridge, queues=2, tap="victim0")])
    index = Path("/sys/class/net/victim0/ifindex").read_text()
    nic = (
        f"<interface type='ethernet'><mac address='{PLUGGED}'/><model type='virtio'/>"
        "<target dev='victim0' managed='no'/><driver queues='2'/></interface>"
    )
    warden.libvirt.define(domain_xml("evil", extra_devices=nic))
    if managed != "no":
        warden.command("enrol", "evil")
    done = warden.libvirt.virsh("start", "evil", check=False)
    if managed != "permissive":
        assert "tap victim0 is that of" in done.stderr
    else:
        (breach,) = warden.status("web01")["breaches"]
        assert "victim0" in breach
    warden.libvirt.virsh("destroy", "evil", check=False)
    assert Path("/sys/class/net/victim0/ifindex").read_text() == index
    assert warden.status("web01")["breaches"] == []


class TestUnguarded:
    """The gate lets an unguarded VM's tap in, but not somebody who took it."""

    @pytest.fixture(params=[UNMANAGED, DISABLED], ids=["unmanaged", "disabled"])
    def theirs(self, request: pytest.FixtureRequest, warden: Warden, bridge: str) -> str:
        set_policy(request.param)
        warden.libvirt.define(domain_xml("theirs", nics=[Nic(VICTIM, bridge, queues=2, tap=TAP)]))
        return "theirs"

    def start_guarded(self, warden: Warden, bridge: str) -> None:
        warden.started("web01", nics=[Nic(OWN, bridge)])

    @pytest.mark.parametrize("deeds", [(), ("rootly", "hide")])
    @pytest.mark.parametrize("first", [True, False], ids=["gate first", "gate later"])
    def test_who_took_it_sends_nothing(
        self, warden: Warden, bridge: str, theirs: str, deeds: tuple[str, ...], first: bool
    ) -> None:
        if first:
            self.start_guarded(warden, bridge)
        with intruder(TAP, *deeds) as thief, listening(bridge) as (listener, other):
            warden.libvirt.start(theirs)
            assert thief.says() == "won"
            if not first:
                self.start_guarded(warden, bridge)
            assert arrived(TAP, plain(OWN), listener, other) == []
            assert "raced" not in warden.command("network", "admit", check=False).stdout
            assert arrived(TAP, plain(OWN), listener, other) == []

    @pytest.mark.parametrize("first", [True, False], ids=["gate first", "gate later"])
    def test_nobody_takes_it_later(
        self, warden: Warden, bridge: str, theirs: str, first: bool
    ) -> None:
        if first:
            self.start_guarded(warden, bridge)
        warden.libvirt.start(theirs)
        if not first:
            self.start_guarded(warden, bridge)
        assert as_user("nobody", lambda: open_tap(TAP)) == "PermissionError"
        with listening(bridge) as (listener, other):
            assert arrived(TAP, plain(OWN), listener, other) == [plain(OWN)]


def test_a_tap_that_root_holds_but_any_user_may_open_is_not_foreign() -> None:
    held = open_tap("held")
    try:
        assert "held" not in [tap.name for tap in foreign_taps(taps.every(), PATHS.libvirt_run)]
        taps.keep_for_root("held")
        assert "held" in [tap.name for tap in foreign_taps(taps.every(), PATHS.libvirt_run)]
    finally:
        os.close(held)

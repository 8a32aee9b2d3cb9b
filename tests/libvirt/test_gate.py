# SPDX-License-Identifier: GPL-2.0-or-later
"""No tap of a guarded domain carries a frame unfiltered, however it came to be."""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.host import network
from tests.host.command import run
from tests.host.domain import Disk, Nic, domain_xml
from tests.host.frames import ethernet
from tests.host.images import qcow2
from tests.host.libvirt import Libvirt
from tests.host.network import Sniffer, neighbour
from tests.host.service import Service
from tests.host.service import service as running_service
from tests.host.syslog import Syslog
from tests.host.tap import inject, open_tap
from tests.libvirt.snapshots import make_base_chains
from tests.libvirt.warden import ENFORCING, PATHS, Warden, as_user, set_policy, until
from tests.libvirt.wire import Wire, plain, tap_of, wire
from virtwarden import gate
from virtwarden.changes import restoring
from virtwarden.gate.foreign import foreign_taps
from virtwarden.system import taps
from virtwarden.system.bridges import learns_from_groups
from virtwarden.system.netfilter import TapFilter
from virtwarden.system.tapholders import holders

OWN, PLUGGED, VICTIM = "52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:03"
OUTSIDE = "52:54:00:00:00:99"
_SECONDS = 20
LLDP_GROUP = "01:80:c2:00:00:0e"


def plug(libvirt: Libvirt, name: str, mac: str, bridge: str, tap: str = "") -> str:
    """Plug a NIC into a running domain, as virsh attach-device does; its tap."""
    target = f"<target dev='{tap}'/>" if tap else ""
    libvirt.virsh(
        "attach-device",
        name,
        "/dev/stdin",
        "--live",
        stdin=f"<interface type='bridge'><mac address='{mac}'/><source bridge='{bridge}'/>{target}"
        "<model type='virtio'/><driver queues='2'/></interface>",
    )
    (found,) = [
        line.split()[0]
        for line in libvirt.virsh("domiflist", name).stdout.splitlines()
        if mac in line
    ]
    return found


def hears(tap: str, listener: Sniffer, other: Sniffer) -> bool:
    """Whether what a neighbour sends to all comes into a tap."""
    with Sniffer(tap, outgoing=True) as packets:
        # A bridge has done with a frame when it takes the next one.
        for text in (b"to all", b"that was all"):
            other.send(plain(OUTSIDE, text=text))
        listener.frames_until(b"that was all")
        return plain(OUTSIDE, text=b"to all") in packets.waiting()


@contextmanager
def listening(bridge: str) -> Iterator[tuple[Sniffer, Sniffer]]:
    """A neighbour who listens, and another one, honest, whose frame says that all has arrived."""
    with neighbour(bridge) as listener, neighbour(bridge) as other:
        yield listener, other


def arrived(tap: str, frame: bytes, listener: Sniffer, other: Sniffer) -> list[bytes]:
    """What of a frame arrived that a tap's guest sends."""
    inject(tap, frame)
    other.send(plain(OUTSIDE, text=b"that was all"))
    return [each for each in listener.frames_until(b"that was all") if each == frame]


@pytest.mark.parametrize("name", ["", "foo"], ids=["libvirt's name", "a name of its own"])
def test_a_nic_that_is_plugged_in_neither_sends_nor_hears_until_it_is_let_in(
    warden: Warden, bridge: str, name: str
) -> None:
    warden.started("web01", nics=[Nic(OWN, bridge, queues=2)])
    tap = plug(warden.libvirt, "web01", PLUGGED, bridge, name)
    with listening(bridge) as (listener, other):
        assert arrived(tap, plain(PLUGGED), listener, other) == []
        assert arrived(tap, plain(VICTIM), listener, other) == []
        assert not hears(tap, listener, other)
        (breach,) = warden.status("web01")["breaches"][-1:]
        assert f"tap {tap} is shut out by the gate" in breach
        assert "virt-warden network admit" in breach
        warden.command("network", "admit", "web01")
        assert arrived(tap, plain(PLUGGED), listener, other) == [plain(PLUGGED)]
        assert arrived(tap, plain(VICTIM), listener, other) == []
        assert hears(tap, listener, other)
    assert warden.status("web01")["breaches"] == []
    warden.libvirt.destroy("web01")
    assert f"vmw-{tap}" not in run("nft", "list", "ruleset").stdout


def test_a_nic_that_is_plugged_into_a_domain_that_had_none_is_shut_out_too(
    warden: Warden, bridge: str
) -> None:
    warden.started("web01")
    tap = plug(warden.libvirt, "web01", PLUGGED, bridge)
    with listening(bridge) as (listener, other):
        assert arrived(tap, plain(PLUGGED), listener, other) == []


def test_a_nic_that_the_policy_refuses_stays_shut_out(warden: Warden, bridge: str) -> None:
    warden.started("web01")
    set_policy(f'{ENFORCING}zones.dmz.bridges = ["{bridge}"]\n')
    tap = plug(warden.libvirt, "web01", PLUGGED, bridge)
    refused = warden.command("network", "admit", check=False)
    assert refused.returncode == 1
    assert f"on zone dmz's bridge {bridge}" in refused.stderr
    with listening(bridge) as (listener, other):
        assert arrived(tap, plain(PLUGGED), listener, other) == []


def test_a_tap_that_is_made_anew_under_an_admitted_name_is_shut_out(
    warden: Warden, bridge: str
) -> None:
    warden.started("web01", nics=[Nic(OWN, bridge, queues=2, tap="again")])
    warden.started("web02")
    warden.kill("web01")
    warden.await_release(warden.status("web01")["uuid"])
    tap = plug(warden.libvirt, "web02", PLUGGED, bridge, "again")
    with listening(bridge) as (listener, other):
        assert arrived(tap, plain(OWN), listener, other) == []
        assert arrived(tap, plain(PLUGGED), listener, other) == []


def flush() -> None:
    """Do what a restart of Debian's nftables.service does."""
    run("nft", "flush", "ruleset")
    make_base_chains()


UNMANAGED = 'managed = ["*", "!theirs*"]\n'


class TestOthers:
    """Who is not guarded is not cut off."""

    def passes(self, libvirt: Libvirt, name: str, bridge: str, mac: str = VICTIM) -> bool:
        with wire(libvirt, name, mac, bridge) as found:
            return found.passes(plain(OWN)) == [plain(OWN)]

    def started(self, libvirt: Libvirt, name: str, bridge: str) -> None:
        libvirt.define(domain_xml(name, nics=[Nic(VICTIM, bridge, queues=2)]))
        libvirt.start(name)

    def test_a_domain_that_is_not_managed_is_let_in_whoever_starts_first(
        self, warden: Warden, bridge: str
    ) -> None:
        set_policy(UNMANAGED)
        self.started(warden.libvirt, "theirs1", bridge)
        warden.started("web01", nics=[Nic(OWN, bridge, queues=2)])
        self.started(warden.libvirt, "theirs2", bridge)
        assert self.passes(warden.libvirt, "theirs1", bridge)
        assert self.passes(warden.libvirt, "theirs2", bridge)
        warden.libvirt.restart()
        assert self.passes(warden.libvirt, "theirs1", bridge)

    def test_a_nic_plugged_into_a_domain_that_is_not_managed_is_let_in_unasked(
        self, warden: Warden, bridge: str
    ) -> None:
        set_policy(UNMANAGED)
        warden.started("web01")
        warden.libvirt.define(domain_xml("theirs"))
        warden.libvirt.start("theirs")
        tap = plug(warden.libvirt, "theirs", VICTIM, bridge)
        warden.command("network", "admit")
        with listening(bridge) as (listener, other):
            assert arrived(tap, plain(OWN), listener, other) == [plain(OWN)]

    @pytest.mark.parametrize("mode", ["permissive", "disabled"])
    def test_a_domain_whose_mode_is_not_enforcing_is_let_in(
        self, warden: Warden, bridge: str, mode: str
    ) -> None:
        set_policy(f'{ENFORCING}[[domain]]\nmatch = "lax"\nmode = "{mode}"\n')
        warden.started("web01", nics=[Nic(OWN, bridge)])
        warden.started("lax", nics=[Nic(VICTIM, bridge, queues=2)])
        assert self.passes(warden.libvirt, "lax", bridge) == (mode == "disabled")
        with wire(warden.libvirt, "lax", VICTIM, bridge) as found:
            assert found.passes(plain(VICTIM)) == [plain(VICTIM)]

    def test_a_permissive_domain_that_would_be_refused_is_heard(
        self, warden: Warden, bridge: str
    ) -> None:
        set_policy(f'mode = "permissive"\nmanaged = ["*"]\nzones.dmz.bridges = ["{bridge}"]\n')
        warden.started("lax", nics=[Nic(VICTIM, bridge, queues=2)])
        with wire(warden.libvirt, "lax", VICTIM, bridge) as found:
            assert found.passes(plain(OWN), plain(VICTIM)) == [plain(VICTIM)]

    @pytest.fixture
    def vpn(self, bridge: str) -> Iterator[str]:
        tap = open_tap("vpn0")
        taps.keep_for_root("vpn0")
        run("ip", "link", "set", "vpn0", "master", bridge, "up")
        yield "vpn0"
        os.close(tap)

    def test_a_tap_that_another_program_has_open_stays_in(
        self, vpn: str, warden: Warden, bridge: str
    ) -> None:
        warden.started("web01", nics=[Nic(OWN, bridge)])
        with listening(bridge) as (listener, other):
            assert arrived(vpn, plain(VICTIM), listener, other) == [plain(VICTIM)]

    def test_a_tap_of_another_program_is_let_in_when_asked(
        self, warden: Warden, bridge: str, request: pytest.FixtureRequest
    ) -> None:
        warden.started("web01", nics=[Nic(OWN, bridge)])
        vpn = request.getfixturevalue("vpn")
        with listening(bridge) as (listener, other):
            assert arrived(vpn, plain(VICTIM), listener, other) == []
            assert f"{vpn} is admitted (foreign tap)" in warden.command("network", "admit").stdout
            assert arrived(vpn, plain(VICTIM), listener, other) == [plain(VICTIM)]

    def test_a_tap_that_the_policy_names_needs_nobody_to_let_it_in(
        self, warden: Warden, bridge: str, request: pytest.FixtureRequest
    ) -> None:
        set_policy(f'{ENFORCING}foreign_taps = ["vpn*"]\n')
        warden.started("web01", nics=[Nic(OWN, bridge)])
        vpn = request.getfixturevalue("vpn")
        with listening(bridge) as (listener, other):
            assert arrived(vpn, plain(VICTIM), listener, other) == [plain(VICTIM)]

    def test_a_name_that_the_policy_gets_later_is_let_in_when_asked(
        self, warden: Warden, bridge: str
    ) -> None:
        warden.started("web01", nics=[Nic(OWN, bridge)])
        tap = open_tap("vpn1")
        run("ip", "link", "set", "vpn1", "master", bridge, "up")
        assert "vpn1" not in warden.command("network", "admit").stdout
        set_policy(f'{ENFORCING}foreign_taps = ["vpn*"]\n')
        assert "vpn1 is admitted (foreign tap)" in warden.command("network", "admit").stdout
        with listening(bridge) as (listener, other):
            assert arrived("vpn1", plain(VICTIM), listener, other) == [plain(VICTIM)]
        os.close(tap)


# linux/if_tun.h; pidfd_getfd(2)
TUNSETPERSIST, PIDFD_GETFD = 0x400454CB, 438


def test_a_tap_that_a_replaced_libvirtd_holds_is_not_foreign(images: Path) -> None:
    """As after libvirt's upgrade: what it is just making is not let in as nobody's."""
    program = images / "libvirtd"
    shutil.copy(Path(sys.executable).resolve(), program)
    tap = open_tap("in-the-making")
    os.set_inheritable(tap, True)
    try:
        with subprocess.Popen([program, "-IS", "-c", "input()"], stdin=PIPE, close_fds=False) as it:
            os.close(tap)
            until(lambda: Path(f"/proc/{it.pid}/exe").readlink() == program)
            program.unlink()
            until(lambda: "in-the-making" in holders())
            assert "in-the-making" not in [
                each.name for each in foreign_taps(taps.every(), PATHS.libvirt_run)
            ]
            it.kill()
    finally:
        run("ip", "link", "delete", "in-the-making", check=False)


def test_a_tap_of_several_queues_is_others_until_it_is_kept_for_root(bridge: str) -> None:
    queue = open_tap("anybodys")
    try:
        assert taps.is_others("anybodys")
        taps.keep_for_root("anybodys")
        assert not taps.is_others("anybodys")
        assert as_user("nobody", lambda: open_tap("anybodys")) == "PermissionError"
    finally:
        os.close(queue)


class TestRunning:
    """What may happen to a running domain's tap."""

    @pytest.fixture
    def tap(self, warden: Warden, bridge: str, images: Path) -> Iterator[Wire]:
        disk = Disk(qcow2(images / "web01.qcow2"))
        warden.started("web01", disks=[disk], nics=[Nic(OWN, bridge, queues=2)])
        with wire(warden.libvirt, "web01", OWN, bridge) as found:
            yield found

    def check(self, warden: Warden, tap: Wire) -> None:
        assert tap.passes(plain(VICTIM), plain(OWN)) == [plain(OWN)]
        assert warden.status("web01")["breaches"] == []

    @pytest.mark.parametrize("killed", [False, True])
    def test_libvirtd_restarts(self, warden: Warden, tap: Wire, killed: bool) -> None:
        if killed:
            warden.libvirt.kill()
        warden.libvirt.restart()
        self.check(warden, tap)

    def test_no_user_of_the_host_attaches_a_queue_to_it(self, warden: Warden, tap: Wire) -> None:
        assert as_user("nobody", lambda: open_tap(tap.tap)) == "PermissionError"
        self.check(warden, tap)
        assert not taps.is_others(tap.tap)

    def test_what_its_qemu_made_outlive_itself_is_gone_after_the_stop(
        self, warden: Warden, tap: Wire
    ) -> None:
        pid = warden.libvirt.pid("web01")
        (first, *_) = [
            int(handle.name)
            for handle in Path(f"/proc/{pid}/fd").iterdir()
            if str(handle.readlink()) == "/dev/net/tun"
        ]
        handle = ctypes.CDLL(None).syscall(PIDFD_GETFD, os.pidfd_open(pid), first, 0)
        fcntl.ioctl(handle, TUNSETPERSIST, 1)
        os.close(handle)
        warden.libvirt.destroy("web01")
        until(lambda: not Path("/sys/class/net", tap.tap).exists())

    def test_its_link_goes_down_and_up(self, warden: Warden, tap: Wire) -> None:
        for state in ("down", "up"):
            warden.libvirt.virsh("domif-setlink", "web01", OWN, state)
        self.check(warden, tap)

    def test_its_guest_resets(self, warden: Warden, tap: Wire) -> None:
        warden.libvirt.virsh("reset", "web01")
        assert tap_of(warden.libvirt, "web01") == tap.tap
        self.check(warden, tap)

    def test_it_moves_to_another_bridge(self, warden: Warden, tap: Wire) -> None:
        with network.bridge("br-other") as other:
            self._update(warden, other)
            with wire(warden.libvirt, "web01", OWN, other) as moved:
                assert moved.tap == tap.tap
                self.check(warden, moved)

    def _update(self, warden: Warden, bridge: str, mac: str = OWN) -> str:
        running = warden.libvirt.xml("web01")
        (nic,) = re.findall(r"<interface.*?</interface>", running, re.DOTALL)
        changed = re.sub(r"bridge='[^']*'", f"bridge='{bridge}'", nic).replace(OWN, mac)
        done = warden.libvirt.virsh(
            "update-device", "web01", "/dev/stdin", "--live", check=mac == OWN, stdin=changed
        )
        return done.stderr

    def test_it_is_given_another_mac(self, warden: Warden, tap: Wire, bridge: str) -> None:
        """libvirt does not do so; should it ever, what the guest may send stays the same."""
        assert "error" in self._update(warden, bridge, VICTIM)
        self.check(warden, tap)

    def test_it_is_saved_and_restored(
        self, warden: Warden, tap: Wire, bridge: str, images: Path
    ) -> None:
        saved = images / "web01.save"
        warden.libvirt.virsh("save", "web01", str(saved))
        warden.libvirt.virsh("restore", str(saved))
        with wire(warden.libvirt, "web01", OWN, bridge) as restored:
            self.check(warden, restored)

    def test_the_rules_are_flushed_and_put_back(self, warden: Warden, tap: Wire) -> None:
        flush()
        breaches = " ".join(warden.status("web01")["breaches"])
        assert "the gate is down" in breaches
        assert "virt-warden network restore" in breaches
        assert "1 taps" in warden.command("network", "restore").stdout
        self.check(warden, tap)

    def test_the_rules_are_flushed_and_another_domain_starts(
        self, warden: Warden, tap: Wire, bridge: str
    ) -> None:
        flush()
        warden.started("web02", nics=[Nic(PLUGGED, bridge)])
        self.check(warden, tap)

    def test_the_rules_are_flushed_and_it_stops(self, warden: Warden, tap: Wire) -> None:
        flush()
        warden.libvirt.destroy("web01")
        assert warden.status("web01")["breaches"] == []


def test_the_gate_comes_with_the_first_domain_and_goes_with_the_last(
    warden: Warden, bridge: str
) -> None:
    for name, mac in (("web01", OWN), ("web02", PLUGGED)):
        warden.started(name, nics=[Nic(mac, bridge)])
        assert "table bridge virt-warden" in run("nft", "list", "ruleset").stdout
    warden.libvirt.destroy("web01")
    assert "table bridge virt-warden" in run("nft", "list", "ruleset").stdout
    assert warden.status("web02")["breaches"] == []
    warden.libvirt.destroy("web02")
    assert "virt-warden" not in run("nft", "list", "ruleset").stdout


def test_a_guest_teaches_its_bridge_nobodys_mac_by_what_no_filter_sees(
    warden: Warden, bridge: str
) -> None:
    """LLDP comes past ebtables, and past the gate."""
    warden.started("web01", nics=[Nic(OWN, bridge, queues=2)])
    tap = plug(warden.libvirt, "web01", PLUGGED, bridge)
    assert not learns_from_groups(bridge)
    inject(tap, ethernet(VICTIM, LLDP_GROUP, 0x88CC, bytes(46)))
    assert VICTIM not in run("bridge", "fdb", "show", "br", bridge).stdout
    warden.libvirt.destroy("web01")
    assert learns_from_groups(bridge)


class TestService:
    """With virt-warden.service nobody has to be asked."""

    @pytest.fixture
    def service(self, warden: Warden, syslog: Syslog) -> Iterator[Service]:
        with running_service() as service:
            yield service

    def test_a_nic_that_is_plugged_in_is_filtered_and_let_in(
        self, service: Service, warden: Warden, bridge: str, syslog: Syslog
    ) -> None:
        warden.started("web01", nics=[Nic(OWN, bridge)])
        tap = plug(warden.libvirt, "web01", PLUGGED, bridge)
        syslog.wait_for("event=let-in domain=web01 ", _SECONDS)
        with listening(bridge) as (listener, other):
            assert arrived(tap, plain(PLUGGED), listener, other) == [plain(PLUGGED)]
            assert arrived(tap, plain(VICTIM), listener, other) == []
        assert warden.status("web01")["breaches"] == []

    def test_a_nic_that_the_policy_refuses_is_told_and_let_in_when_it_allows_it(
        self, service: Service, warden: Warden, bridge: str, syslog: Syslog
    ) -> None:
        warden.started("web01")
        set_policy(f'{ENFORCING}zones.dmz.bridges = ["{bridge}"]\n')
        plug(warden.libvirt, "web01", PLUGGED, bridge)
        assert "the domain is in no zone" in syslog.wait_for("event=shut-out", _SECONDS)
        set_policy(f'{ENFORCING}zone = ["dmz"]\nzones.dmz.bridges = ["{bridge}"]\n')
        syslog.wait_for("event=let-in domain=web01 ", _SECONDS)

    def test_a_tap_of_another_program_is_let_in(
        self, service: Service, warden: Warden, bridge: str, syslog: Syslog
    ) -> None:
        warden.started("web01", nics=[Nic(OWN, bridge)])
        tap = open_tap("vpn0")
        taps.keep_for_root("vpn0")
        run("ip", "link", "set", "vpn0", "master", bridge, "up")
        syslog.wait_for("event=let-in taps=vpn0", _SECONDS)
        with listening(bridge) as (listener, other):
            assert arrived("vpn0", plain(VICTIM), listener, other) == [plain(VICTIM)]
        os.close(tap)

    def test_a_name_that_the_policy_gets_later_is_let_in(
        self, service: Service, warden: Warden, bridge: str, syslog: Syslog
    ) -> None:
        warden.started("web01", nics=[Nic(OWN, bridge)])
        tap = open_tap("vpn1")
        run("ip", "link", "set", "vpn1", "master", bridge, "up")
        set_policy(f'{ENFORCING}foreign_taps = ["vpn1"]\n')
        syslog.wait_for("event=let-in taps=vpn1", _SECONDS)
        os.close(tap)


class TestBackends:
    """Both gates, with taps that no VM is at."""

    NAMES = ("vnet-own", "vnet-plugged")
    DOMAIN = "11111111-2222-3333-4444-555555555555"

    @pytest.fixture(params=["nftables", "ebtables"])
    def gated(self, request: pytest.FixtureRequest, bridge: str) -> Iterator[str]:
        own = TapFilter(
            self.NAMES[0],
            OWN,
            deny_mac_spoofing=True,
            deny_arp_spoofing=True,
            deny_vlan_tags=True,
        )
        PATHS.run.mkdir(mode=0o711, exist_ok=True)
        tap = self.tap(self.NAMES[0], bridge)
        gate.install(PATHS, self.DOMAIN, request.param, request.param, ("vpn*",), (own,))
        yield bridge
        gate.uninstall(PATHS, self.DOMAIN, [self.NAMES[0]])
        os.close(tap)

    def tap(self, name: str, bridge: str) -> int:
        handle = open_tap(name)
        run("ip", "link", "set", name, "master", bridge, "up")
        return handle

    def test_a_tap_that_was_not_let_in_neither_sends_nor_hears(self, gated: str) -> None:
        tap = self.tap(self.NAMES[1], gated)
        with listening(gated) as (listener, other):
            assert arrived(self.NAMES[1], plain(PLUGGED), listener, other) == []
            assert not hears(self.NAMES[1], listener, other)
            assert arrived(self.NAMES[0], plain(OWN), listener, other) == [plain(OWN)]
            assert arrived(self.NAMES[0], plain(VICTIM), listener, other) == []
            gate.admit(PATHS, {self.NAMES[1]: 1})
            gate.admit(PATHS, {self.NAMES[1]: 1})
            assert arrived(self.NAMES[1], plain(PLUGGED), listener, other) == [plain(PLUGGED)]
            assert hears(self.NAMES[1], listener, other)
            assert gate.missing(PATHS, self.NAMES) == []
        os.close(tap)

    def test_a_foreign_tap_needs_not_be_let_in(self, gated: str) -> None:
        tap = self.tap("vpn-x", gated)
        with listening(gated) as (listener, other):
            assert arrived("vpn-x", plain(PLUGGED), listener, other) == [plain(PLUGGED)]
        os.close(tap)

    def test_a_gate_that_somebody_opened_is_noticed_and_shut(self, gated: str) -> None:
        assert gate.missing(PATHS, self.NAMES[:1]) == []
        if "virt-warden" in run("nft", "list", "ruleset").stdout:
            run("nft", "flush", "chain", "bridge", "virt-warden", "prerouting")
        else:
            run("ebtables", "-t", "nat", "-F", "PREROUTING")
        assert "the gate is down" in gate.missing(PATHS, self.NAMES[:1])[0]
        restoring.restore(PATHS)
        assert gate.missing(PATHS, self.NAMES[:1]) == []
        tap = self.tap(self.NAMES[1], gated)
        with listening(gated) as (listener, other):
            assert arrived(self.NAMES[1], plain(PLUGGED), listener, other) == []
            assert arrived(self.NAMES[0], plain(VICTIM), listener, other) == []
        os.close(tap)

    def test_what_goes_to_no_other_port_is_shut_out_too(self, gated: str) -> None:
        """A bridge takes spanning tree and the like for the host's; LLDP alone no filter sees."""
        tap = self.tap(self.NAMES[1], gated)
        lacp = ethernet(VICTIM, "01:80:c2:00:00:02", 0x8809, bytes(46))
        inject(self.NAMES[1], lacp, plain(VICTIM))
        assert VICTIM not in run("bridge", "fdb", "show", "br", gated).stdout
        os.close(tap)

    def test_nothing_is_left_when_the_last_domain_is_gone(self, bridge: str) -> None:
        make_base_chains()
        before = run("nft", "list", "ruleset").stdout
        tap = self.tap(self.NAMES[0], bridge)
        own = TapFilter(
            self.NAMES[0],
            OWN,
            deny_mac_spoofing=True,
            deny_arp_spoofing=True,
            deny_vlan_tags=True,
        )
        for backend in ("nftables", "ebtables"):
            for keeper in ("nftables", "ebtables"):
                gate.install(PATHS, self.DOMAIN, backend, keeper, (), (own,))
                assert run("nft", "list", "ruleset").stdout != before
                gate.uninstall(PATHS, self.DOMAIN, [self.NAMES[0]])
                assert run("nft", "list", "ruleset").stdout == before
        os.close(tap)

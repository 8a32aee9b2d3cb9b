# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's own network: what `network render` writes boots into what `network check` wants."""

from __future__ import annotations

import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.appliance.build import Image
from tests.appliance.hardware import Cable, CableEnd, Hardware
from tests.appliance.machine import Host, booted
from tests.appliance.scratch import scratch
from tests.host.frames import ETHERTYPE_EXPERIMENT

POLICY = """
[host]
bond = "bond0"
slaves = ["eth0", "eth1"]
management = "eth2"
management_addresses = ["192.0.2.5/24"]
management_gateway = "192.0.2.1"
[zones.dmz]
bridges = ["br-dmz"]
vlan = 10
[zones.lan]
bridges = ["br-lan"]
vlan = 20
"""
SHARED = POLICY.replace("br-dmz", "br0").replace("br-lan", "br0")
POLICY_FILE = "/etc/virt-warden/policy.d/50-network.toml"
MANAGEMENT_CABLE = 2
TAG_DMZ = bytes.fromhex("8100000a") + ETHERTYPE_EXPERIMENT.to_bytes(2, "big")

# A VM's tap in the zone, from which numbered frames come until the file is gone.
SENDER = """
import fcntl, itertools, os, pathlib, struct, subprocess, time
tap = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH", b"vnet9", 0x1002))
subprocess.run(["ip", "link", "set", "vnet9", "master", "br-dmz", "up"], check=True)
head = bytes.fromhex("ffffffffffff 525400000001 88b5")
for number in itertools.count():
    if not pathlib.Path("/run/sending").exists():
        break
    os.write(tap, (head + struct.pack("!I", number)).ljust(60, b"\\0"))
    time.sleep(0.002)
"""


@dataclass
class Cabled:
    """A host, and what the test hears at the other ends of its cables."""

    host: Host
    ends: list[CableEnd]

    def findings(self) -> list[dict[str, str]]:
        """What `network check` finds."""
        done = self.host.run("virt-warden network check --json", check=False)
        found: list[dict[str, str]] = json.loads(done.stdout)
        assert done.exit == int(bool(found))
        return found

    def until_clean(self) -> None:
        self.host.until("virt-warden network check >/run/found", seconds=60)


def boot_rendered(made: ExitStack, image: Image, policy: str) -> Cabled:
    """Lay the policy and what is rendered from it onto a host with three cards, and boot it."""
    cables = [Cable(made.enter_context(scratch())) for _ in range(3)]
    host = made.enter_context(booted(image, Hardware(cables=cables)))
    ends = [cable.hold() for cable in cables]
    for cable in cables:
        made.callback(cable.let_go)
    host.put(POLICY_FILE, policy)
    rendered = host.run("virt-warden network render --format networkd").stdout
    for path, text in re.findall(r"^# ---- (\S+)\n(.*?)(?=^# ---- |\Z)", rendered, re.M | re.S):
        host.put(path, text)
    host.run("systemctl enable systemd-networkd")
    host.reboot()
    return Cabled(host, ends)


@pytest.fixture(scope="module")
def cabled(guarded_image: Image) -> Iterator[Cabled]:
    with ExitStack() as made:
        yield boot_rendered(made, guarded_image, POLICY)


def test_a_host_that_boots_with_the_rendered_files_is_as_the_policy_wants_it(
    cabled: Cabled,
) -> None:
    assert cabled.findings() == []
    assert "with 2 zones" in cabled.host.run("virt-warden network check").stdout


def test_a_host_with_one_vlan_aware_bridge_is_as_well(guarded_image: Image) -> None:
    with ExitStack() as made:
        shared = boot_rendered(made, guarded_image, SHARED)
        assert shared.findings() == []
        shared.host.run("bridge vlan add dev bond0 vid 30")
        (found,) = shared.findings()
        assert found["what"] == "VLAN 30 is on bond0 too"


def test_the_bridge_firewall_is_off_when_something_loads_it(cabled: Cabled) -> None:
    cabled.host.run("modprobe br_netfilter && udevadm settle")
    assert cabled.findings() == []


DUMMY = "ip link add card9 type dummy && ip link set card9 up"
LISTEN = (
    "systemd-run -q --unit listener python3 -c 'import socket, time;"
    ' s = socket.create_server(("", 16509)); time.sleep(9999)\' &&'
    " until ss -Hltn | grep -q :16509; do sleep 0.1; done"
)

# networkd puts a VLAN back on its bridge by itself, within a moment.
HANDS_OFF = "systemctl stop systemd-networkd.socket systemd-networkd"

# What breaks it; what finds it, where; what mends it, by default what the finding says.
BREAKS: dict[str, tuple[str, str, str, str | None]] = {
    "no monitoring": ("ip link set bond0 type bond miimon 0", "bond-monitoring", "bond0", None),
    "a slave is away": ("ip link set eth1 nomaster", "bond-slaves", "eth1", None),
    "a slave is down": ("ip link set eth1 down", "link", "eth1", None),
    "a slave too many": (
        f"{DUMMY} && ip link set card9 down && ip link set card9 master bond0",
        "bond-slaves",
        "card9",
        "ip link delete card9",
    ),
    "a VLAN on another bridge": (
        f"{HANDS_OFF} && ip link set bond0.10 master br-lan",
        "zone-vlan",
        "br-dmz",
        "ip link set bond0.10 master br-dmz && systemctl start systemd-networkd",
    ),
    "a VLAN on no bridge": (
        f"{HANDS_OFF} && ip link set bond0.10 nomaster",
        "zone-vlan",
        "bond0.10",
        "ip link set bond0.10 master br-dmz && systemctl start systemd-networkd",
    ),
    "a VLAN is down": ("ip link set bond0.10 down", "zone-vlan", "bond0.10", None),
    "a zone's bridge is down": ("ip link set br-dmz down", "zone-bridge", "br-dmz", None),
    "another card on a zone's bridge": (
        f"{DUMMY} && ip link set card9 master br-dmz",
        "zone-bridge",
        "br-dmz",
        "ip link delete card9",
    ),
    "the host on a zone's bridge": (
        "ip link add link br-dmz name host9 type macvlan",
        "zone-vlan",
        "host9",
        None,
    ),
    "the host has an address there": (
        "ip address add 10.9.9.1/24 dev br-lan",
        "host-address",
        "br-lan",
        None,
    ),
    "the host uses IPv6 there": (
        "sysctl -w net/ipv6/conf/br-lan/disable_ipv6=0",
        "host-ipv6",
        "br-lan",
        None,
    ),
    "no reverse path filter": (
        "sysctl -w net/ipv4/conf/{all,br-dmz}/rp_filter=0",
        "rp-filter",
        "br-dmz",
        "sysctl -w net/ipv4/conf/{all,br-dmz}/rp_filter=1",
    ),
    "ARP for all addresses": (
        "sysctl -w net/ipv4/conf/br-dmz/arp_ignore=0",
        "arp-ignore",
        "br-dmz",
        None,
    ),
    "the host routes": (
        "sysctl -w net/ipv4/conf/br-dmz/forwarding=1",
        "forwarding",
        "br-dmz",
        None,
    ),
    "frames go through the IP firewall": (
        "modprobe br_netfilter && udevadm settle && sysctl -w net/bridge/bridge-nf-call-iptables=1",
        "bridge-netfilter",
        "net.bridge.bridge-nf-call-iptables",
        None,
    ),
    "management on a bridge": ("ip link set eth2 master br-lan", "management", "eth2", None),
    "management without address": (
        "ip address delete 192.0.2.5/24 dev eth2",
        "management",
        "eth2",
        "networkctl reconfigure eth2",
    ),
    "libvirt listens on another card": (
        f"{DUMMY} && ip address add 10.9.9.1/24 dev card9 && {LISTEN}",
        "reachable",
        "card9",
        "ip link delete card9 && systemctl stop listener",
    ),
    "no bond": ("ip link delete bond0", "bond", "bond0", "systemctl restart systemd-networkd"),
    "a bond of another mode": (
        "ip link delete bond0 && ip link add bond0 type bond mode balance-rr",
        "bond-mode",
        "bond0",
        "ip link delete bond0 && systemctl restart systemd-networkd",
    ),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_each_thing_that_is_broken_is_found_and_mended(cabled: Cabled, broken: str) -> None:
    breaks, item, subject, mends = BREAKS[broken]
    cabled.host.run(breaks)
    found = {(each["item"], each["subject"]): each["fix"] for each in cabled.findings()}
    assert (item, subject) in found
    # Behind the comma stands what no command can do.
    cabled.host.run(mends or found[item, subject].split(", ")[0])
    cabled.until_clean()


@pytest.mark.parametrize(("cable", "item"), [(0, "link"), (MANAGEMENT_CABLE, "management")])
def test_a_cable_that_is_pulled_is_found(cabled: Cabled, cable: int, item: str) -> None:
    cabled.host.pull(cable)
    cabled.host.until(f"ip link show eth{cable} | grep -q NO-CARRIER")
    assert (item, f"eth{cable}") in {(each["item"], each["subject"]) for each in cabled.findings()}
    cabled.host.pull(cable, up=True)
    cabled.until_clean()


class Ear:
    """Hears, at the ends of the slaves' cables, which of the sender's frames come tagged."""

    def __init__(self, ends: list[CableEnd]) -> None:
        self.heard: dict[int, list[int]] = defaultdict(list)
        self._news = threading.Condition()
        for cable, end in enumerate(ends):
            threading.Thread(target=self._listen, args=(cable, end), daemon=True).start()

    def until(self, cable: int, number: int) -> None:
        """Wait until so many more frames came by this cable."""
        with self._news:
            wanted = len(self.heard[cable]) + number
            assert self._news.wait_for(lambda: len(self.heard[cable]) >= wanted, 60)

    def _listen(self, cable: int, end: CableEnd) -> None:
        while True:
            try:
                frame = end.receive(120)
            except OSError:
                return
            if frame[12:18] == TAG_DMZ:
                with self._news:
                    self.heard[cable].append(int.from_bytes(frame[18:22], "big"))
                    self._news.notify_all()


def test_frames_go_on_when_the_cable_in_use_is_pulled(cabled: Cabled, record_property: Any) -> None:
    host, ear = cabled.host, Ear(cabled.ends[:2])
    host.put("/root/sender.py", SENDER)
    active = host.run("cat /sys/class/net/bond0/bonding/active_slave").stdout.strip()
    used = int(active.removeprefix("eth"))
    host.run("touch /run/sending")
    sending = host.begin("python3 /root/sender.py")
    ear.until(used, 200)
    host.pull(used)
    ear.until(1 - used, 200)
    host.run("rm /run/sending")
    assert sending.wait().exit == 0
    host.pull(used, up=True)
    cabled.until_clean()

    before, after = ear.heard[used], ear.heard[1 - used]
    assert before == [*range(before[0], before[-1] + 1)]
    assert after == [*range(after[0], after[-1] + 1)]
    lost = after[0] - before[-1] - 1
    record_property("frames lost, of one each 2 ms", lost)
    print(f"{lost} frames of one each 2 ms were lost")
    # Twenty times the 100 ms in which the bond looks at its links.
    assert 0 <= lost < 1000

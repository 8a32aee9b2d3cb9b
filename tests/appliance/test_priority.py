# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames with a priority and no VLAN, as Windows sends them, on a bridge that separates VLANs."""

from __future__ import annotations

from tests.appliance import linux_guest
from tests.appliance.machine import Host
from tests.host.domain import Nic

_POLICY = """
[zones.dmz]
bridges = ["br0"]
vlan = 10
[[domain]]
match = "linux"
zone = ["dmz"]
"""
# An uplink that carries VLAN 10, and the host of that VLAN at its other end.
_BRIDGE = """
ip link add br0 type bridge forward_delay 0 vlan_filtering 1
ip link add up0 type veth peer name far0
ip link set up0 master br0
bridge vlan add dev up0 vid 10
bridge vlan delete dev up0 vid 1
ip link add link far0 name far0.10 type vlan id 10
ip addr add 192.0.2.1/24 dev far0.10
for each in br0 up0 far0 far0.10; do ip link set $each up; done
"""
_HOST, _GUEST, _TAGGED = "192.0.2.1", "192.0.2.2", "192.0.2.3"
_MAC, _FORGED = "52:54:00:00:00:01", "52:54:00:00:00:66"
_HEARD = "/run/heard.pcap"
_READ = f"tcpdump -Z root -e -n -r {_HEARD} 2>/dev/null"


def test_a_guests_frames_with_a_priority_arrive_in_its_zones_vlan(guarded: Host) -> None:
    guarded.put("/etc/virt-warden/policy.d/50-zones.toml", _POLICY)
    guarded.run(_BRIDGE)
    guarded.run(f"systemd-run -q --unit ear tcpdump -Z root -U -w {_HEARD} -i far0 arp")
    guarded.until(f"test -s {_HEARD}")
    guest = linux_guest.booted(guarded, "linux", nics=[Nic(_MAC, "br0")])

    def typed(*commands: str) -> int:
        done = linux_guest.typed(guest, "; ".join(commands))
        print(commands, done)
        return done.exit

    assert typed("ip link set eth0 up", f"ip addr add {_GUEST}/24 dev eth0") == 0
    assert typed(f"arping -c 5 -w 20 -f -I eth0 {_HOST}") == 0

    vlan = "/bin/busybox vconfig"
    assert typed(f"{vlan} add eth0 0 && {vlan} set_egress_map eth0.0 0 5") == 0
    assert typed(f"ip addr add {_TAGGED}/24 dev eth0.0") == 0
    # The answers are for eth0, since they have no tag: nobody waits for them.
    for mac in (_FORGED, _MAC):
        typed("ip link set eth0.0 down", f"ip link set eth0.0 address {mac}")
        typed("ip link set eth0.0 up", f"arping -U -c 3 -w 5 -I eth0.0 {_TAGGED}")
    guarded.until(f"{_READ} | grep -q {_TAGGED}", seconds=60)
    heard = [line for line in guarded.run(_READ).stdout.splitlines() if _TAGGED in line]
    assert all("vlan 10, p 5, " in line for line in heard)
    assert all(f" {_MAC} > " in line for line in heard)
    assert _FORGED not in guarded.run(_READ).stdout
    assert guest.status()["breaches"] == []
    assert guarded.denials() == []

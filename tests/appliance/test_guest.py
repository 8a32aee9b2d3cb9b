# SPDX-License-Identifier: GPL-2.0-or-later
"""A real guest kernel, and what it sends."""

from __future__ import annotations

from tests.appliance import linux_guest
from tests.appliance.machine import Host
from tests.host.domain import Nic

_BRIDGE = "br1"
_HOST, _GUEST = "192.0.2.1", "192.0.2.2"
_MAC, _FORGED = "52:54:00:00:00:01", "52:54:00:00:00:66"


def test_a_guests_frame_arrives_and_its_forged_one_only_without_us(either: Host) -> None:
    either.run(f"ip link add {_BRIDGE} type bridge forward_delay 0 && ip link set {_BRIDGE} up")
    either.run(f"ip addr add {_HOST}/24 dev {_BRIDGE}")
    guest = linux_guest.booted(either, "linux", nics=[Nic(_MAC, _BRIDGE)])

    def answered(mac: str) -> bool:
        change = f"ip link set eth0 down; ip link set eth0 address {mac}; ip link set eth0 up"
        linux_guest.typed(guest, f"{change}; ip addr replace {_GUEST}/24 dev eth0")
        return linux_guest.typed(guest, f"arping -c 5 -w 20 -f -I eth0 {_HOST}").exit == 0

    assert answered(_MAC)
    assert answered(_FORGED) is not either.has_warden()
    heard = either.run(f"bridge fdb show br {_BRIDGE}").stdout
    assert (_FORGED in heard) is not either.has_warden()
    assert answered(_MAC)
    assert either.denials() == []
    if either.has_warden():
        assert guest.status()["breaches"] == []

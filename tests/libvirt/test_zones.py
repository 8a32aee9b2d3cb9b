# SPDX-License-Identifier: GPL-2.0-or-later
"""Each VM in its zone, for real: on the right bridge, and out of its like's reach where asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.host import network
from tests.host.domain import Nic
from tests.host.libvirt import Libvirt
from tests.host.tap import inject
from tests.libvirt.warden import ENFORCING, Warden, set_policy
from tests.libvirt.wire import Wire, plain, tap_of, wire

ONE, TWO = "52:54:00:00:00:01", "52:54:00:00:00:02"
IN_DMZ = '[[domain]]\nmatch = "web*"\nzone = ["dmz"]\n'


def zones(bridge: str, *more: str) -> str:
    return "\n".join([ENFORCING, "[zones.dmz]", f'bridges = ["{bridge}"]', *more, "", IN_DMZ])


def test_a_domain_starts_in_its_zone_and_nowhere_else(warden: Warden, bridge: str) -> None:
    set_policy(zones(bridge))
    with network.bridge("br-elsewhere") as elsewhere:
        warden.enrolled("web01", nics=[Nic(ONE, elsewhere)])
        line = warden.refusal("web01")
        assert f"NIC {ONE}" in line
        assert f"on bridge {elsewhere}, which is not one of zone dmz" in line
        assert f"put it on bridge {bridge}" in line
        warden.started("web02", nics=[Nic(TWO, bridge)])
        assert warden.status("web02")["breaches"] == []


def test_a_domain_without_a_zone_does_not_start_in_one(warden: Warden, bridge: str) -> None:
    set_policy(zones(bridge))
    warden.enrolled("db01", nics=[Nic(ONE, bridge)])
    assert "the domain is in no zone" in warden.refusal("db01")


def test_a_nic_that_is_moved_out_of_its_zone_is_told_by_status(warden: Warden, bridge: str) -> None:
    set_policy(zones(bridge))
    warden.started("web01", nics=[Nic(ONE, bridge)])
    with network.bridge("br-elsewhere") as elsewhere:
        nic = (
            f"<interface type='bridge'><mac address='{ONE}'/><source bridge='{elsewhere}'/>"
            "<model type='virtio'/></interface>"
        )
        warden.libvirt.virsh("update-device", "web01", "/dev/stdin", "--live", stdin=nic)
        (breach,) = warden.status("web01")["breaches"]
        assert f"on bridge {elsewhere}, which is not one of zone dmz" in breach
        warden.libvirt.destroy("web01")


@contextmanager
def libvirt_network(libvirt: Libvirt, name: str, bridge: str) -> Iterator[str]:
    """A libvirt network that is a bridge of the host's."""
    xml = f"<network><name>{name}</name><forward mode='bridge'/><bridge name='{bridge}'/></network>"
    libvirt.virsh("net-define", "/dev/stdin", stdin=xml)
    libvirt.virsh("net-start", name)
    try:
        yield name
    finally:
        libvirt.virsh("net-destroy", name)
        libvirt.virsh("net-undefine", name)


def test_a_libvirt_network_can_be_a_zones(warden: Warden, bridge: str) -> None:
    with libvirt_network(warden.libvirt, "inside", bridge) as name:
        set_policy(f'{ENFORCING}zones.dmz.networks = ["{name}"]\n{IN_DMZ}')
        warden.started("web01", nics=[Nic(ONE, name, kind="network")])
        assert warden.status("web01")["breaches"] == []
        warden.enrolled("db01", nics=[Nic(TWO, name, kind="network")])
        assert "on zone dmz's libvirt network inside" in warden.refusal("db01")
        warden.libvirt.destroy("web01")


def test_a_nic_is_not_plugged_into_another_zones_libvirt_network(
    warden: Warden, bridge: str
) -> None:
    """Here libvirt does tell a hook, and what it says is what the admin reads."""
    with libvirt_network(warden.libvirt, "inside", bridge) as name:
        set_policy(
            f'{ENFORCING}zones.lan.networks = ["{name}"]\nzones.dmz.bridges = ["br"]\n{IN_DMZ}'
        )
        warden.started("web01")
        nic = (
            f"<interface type='network'><mac address='{ONE}'/><source network='{name}'/>"
            "<model type='virtio'/></interface>"
        )
        plug = ("attach-device", "web01", "/dev/stdin", "--live")
        refused = warden.libvirt.virsh(*plug, stdin=nic, check=False)
        assert "domain web01, NIC 52:54:00:00:00:01" in refused.stderr
        assert f"on libvirt network {name}, which is not one of zone dmz" in refused.stderr
        assert warden.libvirt.virsh("domiflist", "web01").stdout.strip() == ""
        set_policy(f'{ENFORCING}zones.dmz.networks = ["{name}"]\n{IN_DMZ}')
        warden.libvirt.virsh(*plug, stdin=nic)
        warden.command("network", "admit")
        assert warden.status("web01")["breaches"] == []
        warden.libvirt.destroy("web01")


@pytest.mark.parametrize("peers", ["deny", "allow"])
def test_a_zones_domains_reach_each_other_only_where_they_may(
    warden: Warden, bridge: str, peers: str
) -> None:
    set_policy(zones(bridge, f'peers = "{peers}"'))
    for name, mac in (("web01", ONE), ("web02", TWO)):
        warden.started(name, nics=[Nic(mac, bridge, queues=2)])
        assert warden.status(name)["breaches"] == []
    with (
        wire(warden.libvirt, "web01", ONE, bridge) as first,
        wire(warden.libvirt, "web02", TWO, bridge) as second,
    ):
        assert first.passes(plain(ONE)) == [plain(ONE)], "what is beyond the uplink is reached"
        assert _reaches(first, second, tap_of(warden.libvirt, "web02")) == (peers == "allow")


def _reaches(sender: Wire, receiver: Wire, tap: str) -> bool:
    """Whether what one domain sends comes into another's tap."""
    with network.Sniffer(tap, outgoing=True) as packets:
        inject(sender.tap, plain(sender.mac, text=b"to my peer"))
        # A neighbour's frame goes to all ports, isolated ones as well.
        receiver.neighbour.send(plain("52:54:00:00:00:99", text=b"that was all"))
        return plain(sender.mac, text=b"to my peer") in packets.frames_until(b"that was all")

# SPDX-License-Identifier: GPL-2.0-or-later
"""The zones guard: a NIC is in its domain's zone, or the domain does not start."""

from __future__ import annotations

from typing import Any

import pytest
import xmls
from fake_host import FakeHost, account_of, case_of, process_of, refusal, refusals, rules

from virtwarden.changes import SetBridgePort
from virtwarden.guards import zones
from virtwarden.guards.base import Case, Op
from virtwarden.policy import NicRules, Zone
from virtwarden.system.bridges import Port

DMZ, LAN = Zone(bridges=("br-dmz",), networks=("dmz",)), Zone(bridges=("br-lan",))
APART = {"dmz": DMZ, "lan": LAN}
SHARED = {
    "dmz": Zone(bridges=("br0",), vlan=10, peers="deny"),
    "lan": Zone(bridges=("br0",), vlan=20),
}
MAC = "52:54:00:00:00:01"


@pytest.fixture
def host() -> FakeHost:
    return FakeHost(taps={"vnet0"}, bridges={"vnet0": "br-dmz"})


def nic(bridge: str = "br-dmz", kind: str = "bridge", tap: str = "vnet0") -> str:
    source = {"bridge": f"bridge='{bridge}'", "network": f"network='{bridge}'"}.get(kind, "")
    return (
        f"<interface type='{kind}'><mac address='{MAC}'/><source {source}/>"
        f"<target dev='{tap}'/></interface>"
    )


def case(
    host: FakeHost,
    devices: str,
    op: Op = Op.PREPARE,
    zone: tuple[str, ...] = ("dmz",),
    zones: dict[str, Zone] | None = None,
    **more: Any,
) -> Case:
    return case_of(xmls.domain(devices), rules(zone=zone, zones=zones or APART, **more), host, op)


# Attacks


def test_a_nic_on_another_zones_bridge_is_refused_with_the_bridge_that_is_right(
    host: FakeHost,
) -> None:
    line = refusal(zones, case(host, nic("br-lan")))
    assert "on bridge br-lan, which is not one of zone dmz" in line
    assert "put it on bridge br-dmz or libvirt network dmz" in line


def test_a_nic_on_a_bridge_of_no_zone_is_refused(host: FakeHost) -> None:
    assert "not one of zone dmz" in refusal(zones, case(host, nic("br-other")))


def test_a_domain_without_a_zone_is_refused_on_a_zones_bridge(host: FakeHost) -> None:
    line = refusal(zones, case(host, nic(), zone=()))
    assert "the domain is in no zone" in line
    assert 'zone = ["dmz"]' in line


@pytest.mark.parametrize("kind", ["user", "direct", "hostdev", "vhostuser"])
def test_a_nic_that_is_on_no_bridge_is_in_no_zone(host: FakeHost, kind: str) -> None:
    found = case(host, nic(kind=kind), untapped="allow")
    assert "which is not one of zone dmz" in refusal(zones, found)


def test_what_the_kernel_says_counts_once_there_is_a_tap(host: FakeHost) -> None:
    host.bridges["vnet0"] = "br-lan"
    assert refusals(zones, case(host, nic())) == []
    assert "on bridge br-lan" in refusal(zones, case(host, nic(), Op.START))
    assert "on bridge br-lan" in refusal(zones, case(host, nic(kind="ethernet"), Op.START))


def test_a_libvirt_network_of_no_zone_is_refused(host: FakeHost) -> None:
    assert "libvirt network lan" in refusal(zones, case(host, nic("lan", kind="network")))


def test_a_bridge_of_several_zones_that_is_not_vlan_aware_is_refused(host: FakeHost) -> None:
    line = refusal(zones, case(host, nic("br0"), zones=SHARED))
    assert "does not separate VLAN 10" in line
    assert "vlan_filtering 1" in line


def test_a_nic_that_may_be_in_either_of_two_zones_is_refused_until_the_policy_says(
    host: FakeHost,
) -> None:
    host.vlan_aware = ("br0",)
    both = ("dmz", "lan")
    line = refusal(zones, case(host, nic("br0"), zone=both, zones=SHARED))
    assert f'zone = "dmz" under [domain.nics."{MAC}"]' in line
    said = {MAC: NicRules(zone="lan")}
    assert refusals(zones, case(host, nic("br0"), zone=both, zones=SHARED, nics=said)) == []


def test_a_nics_own_zone_must_be_one_of_its_domains(host: FakeHost) -> None:
    said = {MAC: NicRules(zone="lan")}
    assert "not one of zone lan" in refusal(zones, case(host, nic("br-lan"), nics=said))
    assert "not one of zone lan" in refusal(zones, case(host, nic("br-dmz"), nics=said))


# Honest passage


@pytest.mark.parametrize("op", [Op.PREPARE, Op.START])
def test_a_nic_on_its_zones_bridge_or_network_passes(host: FakeHost, op: Op) -> None:
    assert refusals(zones, case(host, nic(), op)) == []
    host.bridges["vnet0"] = "virbr1"
    assert refusals(zones, case(host, nic("dmz", kind="network"), op)) == []


def test_where_no_zone_is_nothing_is_refused(host: FakeHost) -> None:
    found = case_of(xmls.domain(nic("br-any")), rules(), host)
    assert refusals(zones, found) == []
    assert refusals(zones, case(host, nic("br-other"), zone=())) == []


def test_a_domain_in_two_zones_has_a_nic_in_each(host: FakeHost) -> None:
    both = case(host, nic("br-dmz") + nic("br-lan"), zone=("dmz", "lan"))
    assert refusals(zones, both) == []


# Plan and promise


def test_on_a_vlan_aware_bridge_the_tap_becomes_an_access_port(host: FakeHost) -> None:
    host.bridges["vnet0"] = "br0"
    host.vlan_aware = ("br0",)
    assert zones.plan(case(host, nic("br0"), zones=SHARED)) == []
    found = case(host, nic("br0"), Op.START, zones=SHARED)
    assert zones.plan(found) == [SetBridgePort("vnet0", 10, isolated=True)]


def test_on_a_bridge_of_its_own_a_zones_vlan_is_the_uplinks_matter(host: FakeHost) -> None:
    own = {"dmz": Zone(bridges=("br-dmz",), vlan=10)}
    assert zones.plan(case(host, nic(), Op.START, zones=own)) == []


def test_a_port_that_is_not_as_it_should_be_breaks_the_promise(host: FakeHost) -> None:
    host.bridges["vnet0"] = "br0"
    host.vlan_aware = ("br0",)
    process = process_of(account_of("vmw-web01", xmls.UUID))
    found = case(host, nic("br0"), Op.STARTED, zones=SHARED)
    assert zones.verify(found, process) == [
        "tap vnet0 is not an access port of VLAN 10",
        'tap vnet0 can reach the zone\'s other domains (peers = "deny")',
    ]
    host.ports["vnet0"] = Port(vlans=(10,), pvid=10, untagged=(10,), isolated=True)
    assert zones.verify(found, process) == []
    host.ports["vnet0"] = Port(vlans=(1, 10), pvid=10, untagged=(1, 10), isolated=True)
    assert zones.verify(found, process) == ["tap vnet0 is not an access port of VLAN 10"]
    host.bridges["vnet0"] = "br-lan"
    (breach,) = zones.verify(found, process)
    assert "on bridge br-lan, which is not one of zone dmz" in breach

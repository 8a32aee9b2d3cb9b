# SPDX-License-Identifier: GPL-2.0-or-later
"""The network guard: no NIC sends unfiltered unless the policy says so."""

from __future__ import annotations

from typing import Any

import pytest
import xmls
from fake_host import FakeHost, account_of, case_of, process_of, refusal, refusals, rules

from virtwarden.changes import AdmitTaps, InstallFilters
from virtwarden.errors import Refusal
from virtwarden.guards import network
from virtwarden.guards.base import Case, Op
from virtwarden.policy import Mode, NicRules
from virtwarden.system.bridges import Port
from virtwarden.system.netfilter import TapFilter

OPEN = {"mac_spoofing": "allow", "arp_spoofing": "allow", "vlan_tags": "allow"}
UNTAPPED = ["user", "direct", "hostdev", "vhostuser", "vdpa", "udp", "mcast", "server", "client"]


@pytest.fixture
def host() -> FakeHost:
    return FakeHost(taps={"vnet0", "vnet1"})


def case(host: FakeHost, devices: str, op: Op = Op.START, **more: Any) -> Case:
    return case_of(xmls.domain(devices), rules(**more), host, op)


def filters(found: Case) -> tuple[TapFilter, ...]:
    return installed(found).filters


def installed(found: Case) -> InstallFilters:
    (change,) = network.plan(found)
    assert isinstance(change, InstallFilters)
    return change


# Attacks


@pytest.mark.parametrize("kind", [*UNTAPPED, "null", "internal", "unheard-of", ""])
@pytest.mark.parametrize("op", [Op.PREPARE, Op.START])
def test_a_nic_without_a_tap_is_refused_unless_the_policy_allows_it(
    host: FakeHost, kind: str, op: Op
) -> None:
    line = refusal(network, case(host, xmls.nic(kind=kind), op))
    assert "NIC 52:54:00:00:00:01" in line
    assert 'untapped = "allow"' in line
    assert refusals(network, case(host, xmls.nic(kind=kind), op, untapped="allow")) == []


@pytest.mark.parametrize("tap", ["", "macvtap0", "eth0"])
def test_a_nic_that_turns_out_to_have_no_tap_is_refused_at_the_start(
    host: FakeHost, tap: str
) -> None:
    """A libvirt network may end in a macvtap or a device of the host."""
    nic = xmls.nic(kind="network", tap=tap)
    assert refusals(network, case(host, nic, Op.PREPARE)) == []
    assert "no tap" in refusal(network, case(host, nic, Op.START))


@pytest.mark.parametrize("op", [Op.PREPARE, Op.START])
@pytest.mark.parametrize("managed", ["yes", "no"])
def test_another_domains_tap_is_refused(host: FakeHost, op: Op, managed: str) -> None:
    nic = xmls.nic(kind="ethernet").replace("<target", f"<target managed='{managed}'")
    found = case_of(xmls.domain(nic), rules(), host, op)
    host.tap_owners["vnet0"] = xmls.OTHER
    assert f"tap vnet0 is that of another domain, {xmls.OTHER}" in refusal(network, found)
    host.tap_owners["vnet0"] = xmls.UUID
    assert refusals(network, found) == []


@pytest.mark.parametrize("backend", ["auto", "nftables", "ebtables"])
def test_a_host_that_cannot_filter_is_refused(host: FakeHost, backend: str) -> None:
    host.backends = ()
    found = case(host, xmls.nic(), Op.PREPARE, backend=backend)
    assert "on this host" in refusal(network, found)


def test_the_backend_that_the_policy_names_is_not_replaced_by_another(host: FakeHost) -> None:
    host.backends = ("ebtables",)
    line = refusal(network, case(host, xmls.nic(), Op.PREPARE, backend="nftables"))
    assert "nftables does not work" in line


def test_a_backend_that_fails_between_prepare_and_start_refuses_the_start(host: FakeHost) -> None:
    host.backends = ()
    with pytest.raises(Refusal, match="neither nftables nor ebtables works"):
        network.plan(case(host, xmls.nic()))
    (breach,) = network.verify(
        case(host, xmls.nic(), Op.STARTED), process_of(account_of("vmw-web01", xmls.UUID))
    )
    assert "neither nftables nor ebtables works" in breach


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"vlan_tags": "allow"}, "cannot look behind the VLAN tags"),
        ({"link_protocols": "deny"}, "cannot see the LLDP"),
        ({"nics": {"0": NicRules(("192.0.2.1",))}}, "cannot read whose address"),
    ],
)
def test_what_a_backend_cannot_do_is_refused_where_the_policy_names_that_backend(
    host: FakeHost, more: dict[str, Any], words: str
) -> None:
    line = refusal(network, case(host, xmls.nic(), Op.PREPARE, backend="ebtables", **more))
    assert words in line
    assert "nftables" in line
    assert refusals(network, case(host, xmls.nic(), Op.PREPARE, **more)) == []


@pytest.mark.parametrize("op", [Op.PREPARE, Op.START])
def test_a_mac_of_another_running_domain_on_the_bridge_is_refused(host: FakeHost, op: Op) -> None:
    host.twins["br0", "52:54:00:00:00:01"] = ("web02", "vnet7")
    line = refusal(network, case(host, xmls.nic(), op))
    assert "NIC 52:54:00:00:00:01" in line
    assert "domain web02 runs with the same MAC address on bridge br0" in line
    assert "delete the line <mac address='52:54:00:00:00:01'/>" in line
    assert refusals(network, case(host, xmls.nic(), op, mac_spoofing="allow")) == []
    assert refusals(network, case(host, xmls.nic("52:54:00:aa:bb:cc"), op)) == []


def test_on_a_bridge_that_keeps_vlans_apart_only_those_in_one_vlan_are_twins(
    host: FakeHost,
) -> None:
    host.vlan_aware = ("br0",)
    host.twins["br0", "52:54:00:00:00:01"] = ("web02", "vnet7")
    assert refusals(network, case(host, xmls.nic())) == []
    running, process = case(host, xmls.nic(), Op.STARTED), process_of(account_of("a", xmls.UUID))
    host.ports = {"vnet0": Port(pvid=10), "vnet7": Port(pvid=20)}
    assert network.verify(running, process) == []
    host.ports["vnet7"] = Port(pvid=10)
    (breach,) = network.verify(running, process)
    assert "domain web02 runs with the same MAC address" in breach


# Honest passage


@pytest.mark.parametrize("kind", ["bridge", "network", "ethernet"])
@pytest.mark.parametrize("op", [Op.PREPARE, Op.START])
def test_a_nic_with_a_tap_passes(host: FakeHost, kind: str, op: Op) -> None:
    assert refusals(network, case(host, xmls.nic(kind=kind), op)) == []


def test_a_domain_without_a_nic_needs_no_backend(host: FakeHost) -> None:
    host.backends = ()
    assert refusals(network, case(host, "", Op.PREPARE)) == []
    assert network.plan(case(host, "")) == []


def test_where_all_is_allowed_no_backend_is_needed(host: FakeHost) -> None:
    host.backends = ()
    assert refusals(network, case(host, xmls.nic(), Op.PREPARE, **OPEN)) == []
    assert network.plan(case(host, xmls.nic(), **OPEN)) == []


# Plan


@pytest.mark.parametrize(
    ("works", "wanted", "taken"),
    [
        (("nftables", "ebtables"), "auto", "nftables"),
        (("ebtables",), "auto", "ebtables"),
        (("nftables", "ebtables"), "ebtables", "ebtables"),
    ],
)
def test_the_backend_is_the_policys_or_the_first_that_works(
    host: FakeHost, works: tuple[str, ...], wanted: str, taken: str
) -> None:
    host.backends = works
    change = installed(case(host, xmls.nic(), backend=wanted))
    (found,) = change.filters
    assert (change.backend, found.tap, found.mac) == (taken, "vnet0", "52:54:00:00:00:01")


@pytest.mark.parametrize(
    ("works", "gate"), [(("nftables", "ebtables"), "nftables"), (("ebtables",), "ebtables")]
)
def test_the_gate_is_nftables_wherever_that_works(
    host: FakeHost, works: tuple[str, ...], gate: str
) -> None:
    host.backends = works
    assert installed(case(host, xmls.nic(), backend="ebtables")).gate == gate


def test_the_gate_is_up_for_a_domain_without_a_nic_too(host: FakeHost) -> None:
    assert installed(case(host, "")).filters == ()


def test_a_nic_is_held_to_the_addresses_of_its_mac_or_else_of_its_place(host: FakeHost) -> None:
    nics = {
        "52:54:00:00:00:01": NicRules(("192.0.2.1",)),
        "0": NicRules(("192.0.2.9",)),
        "1": NicRules(("192.0.2.2", "2001:db8::2")),
    }
    two = xmls.nic("52:54:00:00:00:01".upper()) + xmls.nic("52:54:00:AA:BB:CC", tap="vnet1")
    found = [each.addresses for each in filters(case(host, two, nics=nics))]
    assert found == [("192.0.2.1",), ("192.0.2.2", "2001:db8::2")]


def test_a_nic_has_the_macs_of_its_entry_besides_its_own(host: FakeHost) -> None:
    nics = {"1": NicRules(macs=("00:00:5E:00:01:0A",))}
    two = xmls.nic() + xmls.nic("52:54:00:AA:BB:CC", tap="vnet1")
    found = [each.every_mac for each in filters(case(host, two, nics=nics))]
    assert found == [("52:54:00:00:00:01",), ("52:54:00:aa:bb:cc", "00:00:5e:00:01:0a")]


def test_taps_of_a_domain_that_is_not_guarded_are_let_in(host: FakeHost) -> None:
    for op in (Op.START, Op.STARTED):
        assert network.plan(case(host, xmls.nic(), op, mode=Mode.DISABLED)) == [
            AdmitTaps(("vnet0",), (1,))
        ]
    assert network.plan(case(host, "", mode=Mode.DISABLED)) == []


def test_each_nic_is_held_to_its_own_address(host: FakeHost) -> None:
    two = xmls.nic() + xmls.nic("52:54:00:AA:BB:CC", tap="vnet1")
    found = {(f.tap, f.mac) for f in filters(case(host, two))}
    assert found == {("vnet0", "52:54:00:00:00:01"), ("vnet1", "52:54:00:aa:bb:cc")}


@pytest.mark.parametrize("allowed", ["mac_spoofing", "arp_spoofing", "vlan_tags"])
def test_what_the_policy_allows_is_not_dropped(host: FakeHost, allowed: str) -> None:
    (found,) = filters(case(host, xmls.nic(), **{allowed: "allow"}))
    denied = {
        "mac_spoofing": found.deny_mac_spoofing,
        "arp_spoofing": found.deny_arp_spoofing,
        "vlan_tags": found.deny_vlan_tags,
    }
    assert [key for key, value in denied.items() if not value] == [allowed]


def test_filters_are_installed_when_the_tap_is_there_and_not_before(host: FakeHost) -> None:
    for op in (Op.PREPARE, Op.STARTED):
        assert network.plan(case(host, xmls.nic(), op)) == []


def test_a_tap_is_held_to_the_queues_of_its_nic(host: FakeHost) -> None:
    two = xmls.nic() + xmls.nic("52:54:00:AA:BB:CC", tap="vnet1").replace(
        "</interface>", "<driver queues='4'/></interface>"
    )
    assert installed(case(host, two)).queues == (1, 4)
    assert installed(case(host, two, mode=Mode.PERMISSIVE)).queues == ()


def test_a_tap_that_libvirt_did_not_make_is_kept(host: FakeHost) -> None:
    nic = "<interface type='ethernet'><target dev='vnet0' managed='no'/>"
    own = f"{nic}<mac address='52:54:00:00:00:01'/></interface>"
    assert installed(case(host, own)).kept == ("vnet0",)
    assert installed(case(host, xmls.nic())).kept == ()


# Promise


def test_somebody_else_at_a_tap_breaks_the_promise(host: FakeHost) -> None:
    host.strangers["vnet0"] = "somebody else has tap vnet0 open"
    own = case(host, xmls.nic(), Op.STARTED)
    found = network.verify(own, process_of(account_of("vmw-web01", xmls.UUID)))
    assert found == ["somebody else has tap vnet0 open"]


def test_rules_that_the_kernel_lost_break_the_promise(host: FakeHost) -> None:
    own = case(host, xmls.nic(), Op.STARTED)
    process = process_of(account_of("vmw-web01", xmls.UUID))
    assert network.verify(own, process) == []
    host.lost_rules["vnet0"] = "vnet0 has no rules"
    host.shut_out = ("vnet0",)
    assert network.verify(own, process) == ["vnet0 has no rules", "tap vnet0 is shut out"]


def test_rules_are_looked_for_where_they_were_put_in_whatever_the_policy_says_by_now(
    host: FakeHost,
) -> None:
    process = process_of(account_of("vmw-web01", xmls.UUID))
    host.filters["vnet0"] = "nftables"
    own = case(host, xmls.nic(), Op.STARTED, backend="ebtables")
    assert network.verify(own, process) == []
    host.lost_rules["vnet0"] = "vnet0 has no rules"
    assert network.verify(own, process) == ["vnet0 has no rules"]


def test_what_the_policy_asks_by_now_of_a_backend_that_cannot_is_a_breach(host: FakeHost) -> None:
    host.filters["vnet0"] = "ebtables"
    own = case(host, xmls.nic(), Op.STARTED, backend="nftables", link_protocols="deny")
    (breach,) = network.verify(own, process_of(account_of("vmw-web01", xmls.UUID)))
    assert breach.startswith("ebtables cannot see the LLDP")

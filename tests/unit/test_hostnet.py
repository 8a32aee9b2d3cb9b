# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's own network: what `network check` finds wrong, what the audit makes of that, and what
`network render` writes."""

from __future__ import annotations

import ast
import configparser
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_host import REPOSITORY, policy

from virtwarden.audit import network as audit
from virtwarden.audit.item import Item, Severity, State
from virtwarden.errors import CommandError, PolicyError
from virtwarden.hostnet import checks, plan, render, seen
from virtwarden.hostnet.plan import HostPlan
from virtwarden.hostnet.seen import Link, Listener, Network, PortVlan

POLICY = """
[host]
bond = "bond0"
slaves = ["eno1", "eno2"]
management = "eno3"
management_addresses = ["192.0.2.5/24", "2001:db8::5/64"]
management_gateway = "192.0.2.1"
management_dns = ["192.0.2.53"]
[zones.dmz]
bridges = ["br-dmz"]
vlan = 10
[zones.lan]
bridges = ["br-lan"]
vlan = 20
"""
SHARED = POLICY.replace("br-dmz", "br0").replace("br-lan", "br0")
CARRIERS = ("bond0", "eno1", "eno2", "br-dmz", "bond0.10", "br-lan", "bond0.20", "br0")


@pytest.fixture
def wanted(tmp_path: Path) -> HostPlan:
    return plan.read(policy(POLICY, tmp_path))


def settings(names: tuple[str, ...]) -> dict[str, str]:
    found = {f"net/bridge/bridge-nf-call-{what}tables": "0" for what in ("ip", "ip6", "arp")}
    for name in ("all", "eno3", *names):
        strict = "0" if name == "eno3" else "1"
        found |= {
            f"net/ipv4/conf/{name}/rp_filter": strict,
            f"net/ipv4/conf/{name}/arp_ignore": strict,
            f"net/ipv4/conf/{name}/forwarding": "0",
            f"net/ipv6/conf/{name}/forwarding": "0",
            f"net/ipv6/conf/{name}/disable_ipv6": "0" if name in ("all", "eno3") else "1",
        }
    return found


def network(*links: Link, **more: Any) -> Network:
    base = [
        Link("lo", addresses=("127.0.0.1/8", "::1/128")),
        Link("bond0", "bond", details={"mode": "active-backup", "miimon": 100}),
        Link("eno1", master="bond0", slave_details={"mii_status": "UP"}),
        Link("eno2", master="bond0", slave_details={"mii_status": "UP"}),
        Link("eno3", addresses=("192.0.2.5/24", "fe80::5/64")),
    ]
    found = {link.name: link for link in [*base, *links]}
    return Network(found, settings=settings(CARRIERS), **more)


def vlan(number: int, master: str) -> Link:
    details = {"id": number, "protocol": "802.1Q"}
    return Link(f"bond0.{number}", "vlan", master, parent="bond0", details=details)


@pytest.fixture
def good() -> Network:
    return network(
        Link("br-dmz", "bridge"),
        vlan(10, "br-dmz"),
        Link("br-lan", "bridge"),
        vlan(20, "br-lan"),
        Link("vnet0", "tun", "br-dmz"),
        listeners=(Listener("0.0.0.0", 22, "", "sshd"), Listener("::", 22, "", "sshd")),  # noqa: S104
    )


@pytest.fixture
def trunk() -> Network:
    found = network(
        Link("br0", "bridge", details={"vlan_filtering": 1}),
        port_vlans={"bond0": (PortVlan(10, tagged=True), PortVlan(20, tagged=True))},
    )
    links = {**found.links, "bond0": replace(found.links["bond0"], master="br0")}
    return replace(found, links=links)


def with_link(network: Network, name: str, /, **changes: Any) -> Network:
    link = network.links.get(name, Link(name))
    return replace(network, links={**network.links, name: replace(link, **changes)})


def without(network: Network, name: str) -> Network:
    return replace(network, links={n: link for n, link in network.links.items() if n != name})


def test_a_host_as_it_should_be_has_no_finding(wanted: HostPlan, good: Network) -> None:
    assert checks.findings(wanted, good) == []


def test_a_vlan_aware_bridge_as_it_should_be_has_none(tmp_path: Path, trunk: Network) -> None:
    assert checks.findings(plan.read(policy(SHARED, tmp_path)), trunk) == []


BREAKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "no bond": ("bond", "bond0", {"kind": ""}),
    "its mode": ("bond-mode", "bond0", {"details": {"mode": "balance-rr", "miimon": 100}}),
    "its monitoring": ("bond-monitoring", "bond0", {"details": {"mode": "active-backup"}}),
    "a slave away": ("bond-slaves", "eno2", {"master": ""}),
    "a slave too many": ("bond-slaves", "eno9", {"master": "bond0"}),
    "a dead slave": ("link", "eno2", {"has_carrier": False}),
    "a slave that the bond gave up": ("link", "eno2", {"slave_details": {"mii_status": "DOWN"}}),
    "no bridge": ("zone-bridge", "br-dmz", {"kind": ""}),
    "a bridge that is down": ("zone-bridge", "br-dmz", {"is_up": False}),
    "a VLAN in another's bridge": ("zone-vlan", "br-dmz", {"name": "bond0.10", "master": "br-lan"}),
    "a VLAN that is down": ("zone-vlan", "bond0.10", {"is_up": False}),
    "a service tag": (
        "zone-vlan",
        "bond0.10",
        {"details": {"id": 10, "protocol": "802.1ad"}},
    ),
    "a second end of a VLAN": (
        "zone-vlan",
        "eno1.10",
        {"kind": "vlan", "parent": "eno1", "details": {"id": 10}},
    ),
    "another port": ("zone-bridge", "br-dmz", {"name": "eth9", "master": "br-dmz"}),
    "a VLAN of another card": (
        "zone-bridge",
        "br-dmz",
        {"name": "eth9.10", "kind": "vlan", "master": "br-dmz", "details": {"id": 10}},
    ),
    "the bond in a bridge": ("bond", "bond0", {"master": "br-dmz"}),
    "a slave in a bridge": ("bond-slaves", "eno2", {"master": "br-dmz"}),
    "a host's interface on a zone's VLAN": (
        "zone-vlan",
        "host0",
        {"kind": "macvlan", "parent": "bond0.10"},
    ),
    "a host's interface on a zone's bridge": (
        "zone-vlan",
        "br-lan.5",
        {"kind": "vlan", "parent": "br-lan", "details": {"id": 5}},
    ),
    "a host's interface on the bond": ("zone-vlan", "tap5", {"kind": "macvtap", "parent": "eno1"}),
    "an address on a bridge": ("host-address", "br-dmz", {"addresses": ("10.0.0.1/24",)}),
    "a link-local on a VLAN": ("host-address", "bond0.10", {"addresses": ("fe80::1/64",)}),
    "management in the bond": ("management", "eno3", {"master": "bond0"}),
    "management is a bridge": ("management", "eno3", {"kind": "bridge"}),
    "management is a VLAN": ("management", "eno3", {"kind": "vlan"}),
    "management is dead": ("management", "eno3", {"has_carrier": False}),
    "management has no address": ("management", "eno3", {"addresses": ()}),
    "management has a link-local one": ("management", "eno3", {"addresses": ("fe80::5/64",)}),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_each_item_that_is_broken_is_found(wanted: HostPlan, good: Network, broken: str) -> None:
    item, subject, changes = BREAKS[broken]
    name = changes.get("name", subject)
    found = checks.findings(wanted, with_link(good, name, **changes))
    assert (item, subject) in [(each.item, each.subject) for each in found]
    assert all(each.why and each.fix for each in found)


@pytest.mark.parametrize("name", ["bond0", "br-dmz", "bond0.10", "eno3"])
def test_an_interface_that_is_not_there_is_found(
    wanted: HostPlan, good: Network, name: str
) -> None:
    assert checks.findings(wanted, without(good, name))


@pytest.mark.parametrize(
    ("key", "value", "item"),
    [
        ("net/bridge/bridge-nf-call-iptables", "1", "bridge-netfilter"),
        ("net/bridge/bridge-nf-call-ip6tables", "1", "bridge-netfilter"),
        ("net/bridge/bridge-nf-call-arptables", "1", "bridge-netfilter"),
        ("net/ipv4/conf/br-dmz/rp_filter", "2", "rp-filter"),
        ("net/ipv4/conf/all/rp_filter", "2", "rp-filter"),
        ("net/ipv4/conf/br-dmz/forwarding", "1", "forwarding"),
        ("net/ipv6/conf/br-dmz/forwarding", "1", "forwarding"),
        ("net/ipv6/conf/br-dmz/disable_ipv6", "0", "host-ipv6"),
    ],
)
def test_a_setting_that_undoes_a_protection_is_found(
    wanted: HostPlan, good: Network, key: str, value: str, item: str
) -> None:
    found = checks.findings(wanted, replace(good, settings={**good.settings, key: value}))
    assert item in [each.item for each in found]


@pytest.mark.parametrize("key", ["rp_filter", "arp_ignore"])
def test_a_setting_counts_where_either_all_or_the_interface_has_it(
    wanted: HostPlan, good: Network, key: str
) -> None:
    own, every = f"net/ipv4/conf/br-dmz/{key}", f"net/ipv4/conf/all/{key}"
    held = {**good.settings, own: "0", every: "1"}
    assert checks.findings(wanted, replace(good, settings=held)) == []
    free = {**good.settings, own: "0", every: "0"}
    (found,) = [
        each
        for each in checks.findings(wanted, replace(good, settings=free))
        if each.subject == "br-dmz"
    ]
    assert found.item == key.replace("_", "-")


@pytest.mark.parametrize(
    ("listener", "reached"),
    [
        (Listener("0.0.0.0", 22, "", "sshd"), True),  # noqa: S104
        (Listener("::", 16509, "", "libvirtd"), True),
        (Listener("10.0.0.1", 5900, "", "qemu-system-x86_64"), True),
        (Listener("0.0.0.0", 22, "eno4", "sshd"), True),  # noqa: S104
        (Listener("0.0.0.0", 22, "eno3", "sshd"), False),  # noqa: S104
        (Listener("192.0.2.5", 22, "", "sshd"), False),
        (Listener("127.0.0.1", 5900, "", "qemu-system-x86_64"), False),
        (Listener("0.0.0.0", 443, "", "nginx"), False),  # noqa: S104
        (Listener("2001:db8::9", 22, "", "sshd"), False),
    ],
)
def test_what_manages_the_host_answers_on_the_management_interface_alone(
    wanted: HostPlan, good: Network, listener: Listener, reached: bool
) -> None:
    other = with_link(good, "eno4", addresses=("10.0.0.1/24",))
    found = checks.findings(wanted, replace(other, listeners=(listener,)))
    assert [each.subject for each in found] == (["eno4"] if reached else [])


TRUNK_BREAKS: dict[str, Any] = {
    "it keeps no VLANs apart": lambda n: with_link(n, "br0", details={"vlan_filtering": 0}),
    "the bond is not in it": lambda n: with_link(n, "bond0", master=""),
    "a VLAN is missing": lambda n: replace(n, port_vlans={"bond0": (PortVlan(10, tagged=True),)}),
    "a VLAN is untagged": lambda n: replace(
        n, port_vlans={"bond0": (PortVlan(10, tagged=True), PortVlan(20, tagged=False))}
    ),
    "a VLAN is there too": lambda n: replace(
        n, port_vlans={"bond0": tuple(PortVlan(v, tagged=True) for v in (1, 10, 20))}
    ),
}


@pytest.mark.parametrize("broken", TRUNK_BREAKS)
def test_each_fault_of_a_vlan_aware_bridge_is_found(
    tmp_path: Path, trunk: Network, broken: str
) -> None:
    found = checks.findings(plan.read(policy(SHARED, tmp_path)), TRUNK_BREAKS[broken](trunk))
    assert [each.subject for each in found] == ["br0"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "host.bond and host.slaves and host.management"),
        (POLICY.replace("vlan = 20", 'peers = "deny"'), "zone lan has bridges and no vlan"),
    ],
)
def test_a_policy_that_leaves_out_what_is_needed_is_told_so(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(PolicyError, match=words):
        plan.read(policy(text, tmp_path))


def test_what_ss_lists_is_read() -> None:
    listed = (
        'LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:(("sshd",pid=1,fd=3))\n'
        'LISTEN 0 1 [::1]:5900 [::]:* users:(("qemu-system-x86",pid=2,fd=9))\n'
        "LISTEN 0 1 192.0.2.1%eno3:53 0.0.0.0:*\n"
        "LISTEN 0 1 [fe80::1]%eno3:53 [::]:*\n"
        "LISTEN 0 1 *:16509 *:*\n"
    )
    assert [(s.address, s.port, s.device, s.program) for s in seen.listeners(listed)] == [
        ("0.0.0.0", 22, "", "sshd"),  # noqa: S104
        ("::1", 5900, "", "qemu-system-x86"),
        ("192.0.2.1", 53, "eno3", ""),
        ("fe80::1", 53, "eno3", ""),
        ("::", 16509, "", ""),
    ]


# The audit


def audited(text: str, directory: Path, network: Network) -> dict[str, Item]:
    """The items by their id; of those with the same one, the last that is bad."""
    items = list(audit.checks(policy(text, directory), lambda: network))
    return {i.id: i for i in sorted(items, key=lambda item: item.state is State.BAD)}


def test_a_host_as_it_should_be_is_good_in_every_item(tmp_path: Path, good: Network) -> None:
    items = audited(POLICY, tmp_path, good)
    told = {audit.ZONES.id, audit.PLAN.id, *(check.id for check in audit.CHECKS.values())}
    assert {*items} == told
    assert {item.state for item in items.values()} == {State.GOOD}


@pytest.mark.parametrize("broken", BREAKS)
def test_what_the_check_finds_the_audit_tells_once(
    tmp_path: Path, wanted: HostPlan, good: Network, broken: str
) -> None:
    _, subject, changes = BREAKS[broken]
    network = with_link(good, changes.get("name", subject), **changes)
    items = list(audit.checks(policy(POLICY, tmp_path), lambda: network))
    bad = [(i.id, i.subject, i.seen, i.fix) for i in items if i.state is State.BAD]
    found = checks.findings(wanted, network)
    assert bad == [(f"host.network.{f.item}", f.subject, f.what, f.fix) for f in found]
    assert {i.id for i in items if i.state is State.GOOD}.isdisjoint(id_ for id_, *_ in bad)


def test_the_audit_knows_every_finding_that_there_is() -> None:
    modules = (REPOSITORY / "virtwarden" / "hostnet").glob("*.py")
    calls = [node for m in modules for node in ast.walk(ast.parse(m.read_text()))]
    named = {
        ast.literal_eval(node.args[0])
        for node in calls
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Finding"
    }
    assert named == {*audit.CHECKS}


@pytest.mark.parametrize("item", ["bond-mode", "host-address", "rp-filter", "forwarding"])
def test_of_a_bond_that_is_not_there_nothing_else_is_called_good(
    tmp_path: Path, good: Network, item: str
) -> None:
    items = audited(POLICY, tmp_path, without(good, "bond0"))
    assert items["host.network.bond"].state is State.BAD
    assert f"host.network.{item}" not in items


def test_a_host_whose_policy_says_nothing_is_told_what_it_could_say(
    tmp_path: Path, good: Network
) -> None:
    items = audited("", tmp_path, good)
    assert {*items} == {audit.ZONES.id, audit.PLAN.id}
    assert {(i.state, i.severity) for i in items.values()} == {(State.BAD, Severity.LOW)}
    assert "zones.NAME" in items[audit.ZONES.id].fix
    assert "[host]" in items[audit.PLAN.id].fix


def test_a_network_that_cannot_be_looked_at_is_unknown(tmp_path: Path) -> None:
    def look() -> Network:
        raise CommandError("ip cannot be run", code=127, said="", fix="apt install iproute2")

    items = {i.id: i for i in audit.checks(policy(POLICY, tmp_path), look)}
    assert items[audit.PLAN.id].state is State.UNKNOWN
    assert items[audit.PLAN.id].fix == "apt install iproute2"


# Files


def test_networkd_files_are_units_that_say_all_of_it(wanted: HostPlan) -> None:
    files = render.FORMATS["networkd"](wanted)
    units = {Path(path).name: _unit(text) for path, text in files.items() if "systemd" in path}
    assert units["10-bond0.netdev"]["Bond"]["Mode"] == "active-backup"
    assert units["20-bond0-slaves.network"]["Match"]["Name"] == "eno1 eno2"
    assert units["10-bond0.10.netdev"]["VLAN"]["Id"] == "10"
    assert units["30-bond0.10.network"]["Network"]["Bridge"] == "br-dmz"
    assert units["10-br-lan.netdev"]["NetDev"]["Kind"] == "bridge"
    for name, unit in units.items():
        if name.endswith(".network") and "eno3" not in name:
            assert unit["Network"]["LinkLocalAddressing"] == "no"
            assert "Address" not in unit["Network"]
    assert "Address=2001:db8::5/64" in files["/etc/systemd/network/30-eno3.network"]


def test_a_vlan_aware_bridge_is_written_for_networkd_and_not_for_netplan(tmp_path: Path) -> None:
    shared = plan.read(policy(SHARED, tmp_path))
    files = render.FORMATS["networkd"](shared)
    assert "VLANFiltering=yes" in files["/etc/systemd/network/10-br0.netdev"]
    bond = files["/etc/systemd/network/30-bond0.network"]
    assert bond.count("[BridgeVLAN]") == 2
    assert "Bridge=br0" in bond
    with pytest.raises(PolicyError, match="no VLAN-aware bridges"):
        render.FORMATS["netplan"](shared)


def test_the_netplan_file_is_yaml_that_says_all_of_it(wanted: HostPlan) -> None:
    (text,) = [t for path, t in render.FORMATS["netplan"](wanted).items() if "netplan" in path]
    found = yaml.safe_load(text)["network"]
    assert found["bonds"]["bond0"]["parameters"]["mode"] == "active-backup"
    assert found["vlans"]["bond0.20"] == {
        "id": 20,
        "link": "bond0",
        "dhcp4": False,
        "dhcp6": False,
        "accept-ra": False,
        "link-local": [],
    }
    assert found["bridges"]["br-dmz"]["interfaces"] == ["bond0.10"]
    assert found["ethernets"]["eno3"]["addresses"] == ["192.0.2.5/24", "2001:db8::5/64"]


def test_the_ifupdown_file_has_a_stanza_for_each_interface(wanted: HostPlan) -> None:
    text = render.FORMATS["ifupdown"](wanted)["/etc/network/interfaces.d/virt-warden"]
    for name in ("bond0", "bond0.10", "br-dmz", "bond0.20", "br-lan"):
        assert f"auto {name}\niface {name} inet manual\n" in text
    assert "iface eno3 inet static\n    address 192.0.2.5/24\n    gateway 192.0.2.1\n" in text
    assert "iface eno3 inet6 static\n    address 2001:db8::5/64\n" in text
    assert "    bridge_ports bond0.10\n" in text


@pytest.mark.parametrize("style", render.FORMATS)
def test_every_format_has_the_kernels_settings(wanted: HostPlan, style: str) -> None:
    text = render.FORMATS[style](wanted)["/etc/sysctl.d/60-virt-warden-network.conf"]
    for name in wanted.carriers:
        assert f"-net/ipv4/conf/{name}/rp_filter = 1\n" in text
        assert f"-net/ipv6/conf/{name}/disable_ipv6 = 1\n" in text
    assert "eno3" not in text


def _unit(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_file(io.StringIO(text))
    return parser


def test_a_finding_can_be_told_to_programs(wanted: HostPlan, good: Network) -> None:
    (found, *_) = checks.findings(wanted, without(good, "bond0"))
    assert json.dumps(found.__dict__)

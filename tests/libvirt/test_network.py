# SPDX-License-Identifier: GPL-2.0-or-later
"""What a VM sends under another's name does not get past its tap; what it sends honestly does."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

import pytest

from tests.host import network
from tests.host.command import run
from tests.host.domain import Nic, domain_xml
from tests.host.frames import (
    ARP_REPLY,
    BROADCAST,
    ETHERTYPE_ARP,
    arp,
    ethernet,
    mac_bytes,
    tagged,
    vlan,
)
from tests.host.libvirt import Libvirt
from tests.libvirt.snapshots import make_base_chains
from tests.libvirt.warden import ENFORCING, LEFT_ALONE, PATHS, Warden, set_policy
from tests.libvirt.wire import Wire, plain, wire
from virtwarden.changes import journal

BACKENDS = ("nftables", "ebtables")
OWN = "52:54:00:00:00:01"
VICTIM = "52:54:00:00:00:02"
# One whom the bridge has not heard, so that it sends to all ports what is for it.
SILENT = "52:54:00:00:00:03"
# The multicast bit of the first byte set: no sender's address at all (IEEE 802, 9.2).
OWN_AS_GROUP = "53:54:00:00:00:01"
OWN_IP, VICTIM_IP = "192.0.2.1", "192.0.2.2"
ETHERTYPE_RARP, ETHERTYPE_8021AD, ETHERTYPE_IPV4 = 0x8035, 0x88A8, 0x0800
RARP_REQUEST = 3


def policy(backend: str, *more: str) -> str:
    return "\n".join([ENFORCING, "[network]", f'backend = "{backend}"', *more, ""])


def address_resolution(
    sender: str,
    *,
    source: str = OWN,
    ethertype: int = ETHERTYPE_ARP,
    hardware: int = 1,
    protocol: int = ETHERTYPE_IPV4,
    hardware_length: int = 6,
    protocol_length: int = 4,
    operation: int = ARP_REPLY,
    filling: bytes = b"",
) -> bytes:
    """ARP or RARP with a header of any form; RFC 826, RFC 903."""
    header = struct.pack("!HHBBH", hardware, protocol, hardware_length, protocol_length, operation)
    addresses = filling + mac_bytes(sender) + bytes([192, 0, 2, 2]) + mac_bytes(VICTIM) + bytes(4)
    return ethernet(source, BROADCAST, ethertype, header + addresses)


HONEST = {
    "a broadcast": plain(OWN),
    "a multicast": plain(OWN, dst="01:00:5e:00:00:fb"),
    "a frame to one neighbour": plain(OWN, dst=SILENT),
    "an ARP request": arp(OWN, OWN, OWN_IP, VICTIM_IP),
    "an ARP reply": arp(OWN, OWN, OWN_IP, VICTIM_IP, operation=ARP_REPLY),
    "an ARP probe": arp(OWN, OWN, "0.0.0.0", OWN_IP),  # noqa: S104 - RFC 5227
    "a RARP announcement": address_resolution(
        OWN, ethertype=ETHERTYPE_RARP, operation=RARP_REQUEST
    ),
    "IPv4": ethernet(
        OWN, BROADCAST, ETHERTYPE_IPV4, bytes.fromhex("4500002e0000000040fd79d4") + bytes(34)
    ),
}
SPOOFED_MAC = {
    "another's MAC": plain(VICTIM),
    "another's MAC, to one neighbour": plain(VICTIM, dst=SILENT),
    "another's MAC, with its own in ARP": arp(VICTIM, OWN, OWN_IP, VICTIM_IP),
}
SPOOFED_ARP = {
    "ARP request of another": arp(OWN, VICTIM, VICTIM_IP, OWN_IP),
    "ARP reply of another": arp(OWN, VICTIM, VICTIM_IP, OWN_IP, operation=ARP_REPLY),
    "ARP announcement of another": arp(OWN, VICTIM, VICTIM_IP, VICTIM_IP),
    "ARP of another to one neighbour": arp(OWN, VICTIM, VICTIM_IP, OWN_IP, dst_mac=SILENT),
    "ARP with a hardware type not Ethernet": address_resolution(VICTIM, hardware=6),
    "own ARP with a hardware type not Ethernet": address_resolution(OWN, hardware=6),
    "ARP with longer hardware addresses": address_resolution(OWN, hardware_length=8),
    "ARP with shorter hardware addresses": address_resolution(
        VICTIM, hardware_length=4, filling=mac_bytes(OWN)
    ),
    "ARP with no hardware address": address_resolution(VICTIM, hardware_length=0),
    "ARP with longer protocol addresses": address_resolution(OWN, protocol_length=16),
    "ARP with no protocol address": address_resolution(OWN, protocol_length=0),
    "RARP of another": address_resolution(VICTIM, ethertype=ETHERTYPE_RARP, operation=RARP_REQUEST),
    "RARP with longer hardware addresses": address_resolution(
        OWN, ethertype=ETHERTYPE_RARP, hardware_length=8
    ),
}
PRIORITIES = {
    "802.1q, a priority alone": vlan(plain(OWN), 0),
    "own ARP behind a priority": vlan(arp(OWN, OWN, OWN_IP, VICTIM_IP), 0),
}
TAGGED = {
    "802.1q": vlan(plain(OWN), 7),
    "802.1ad": tagged(plain(OWN), ETHERTYPE_8021AD, 7),
    "802.1q in 802.1ad": tagged(vlan(plain(OWN), 7), ETHERTYPE_8021AD, 8),
    "802.1q in 802.1q": vlan(vlan(plain(OWN), 7), 8),
}
TAGGED_ARP = {
    "ARP of another behind a priority": vlan(arp(OWN, VICTIM, VICTIM_IP, OWN_IP), 0),
    "ARP of another behind two priorities": vlan(vlan(arp(OWN, VICTIM, VICTIM_IP, OWN_IP), 0), 0),
    "own ARP behind a tag": vlan(arp(OWN, OWN, OWN_IP, VICTIM_IP), 7),
    "a tag behind a priority": vlan(vlan(plain(OWN), 7), 0),
}
# A bridge takes these from nobody, whatever the policy says.
IMPOSSIBLE = {
    "a multicast MAC": plain(OWN_AS_GROUP),
    "the broadcast MAC": plain(BROADCAST),
    "no MAC": plain("00:00:00:00:00:00"),
}
FORGED = SPOOFED_MAC | SPOOFED_ARP | TAGGED
NEVER = FORGED | TAGGED_ARP | IMPOSSIBLE


class TestFrames:
    """One VM for each backend, into whose tap all these frames are put."""

    @pytest.fixture(scope="class", params=BACKENDS)
    def tap(self, request: pytest.FixtureRequest, libvirt: Libvirt) -> Iterator[Wire]:
        set_policy(policy(request.param))
        with network.bridge("br-frames") as bridge:
            Warden(libvirt).started("sender", nics=[Nic(OWN, bridge, queues=2)])
            with wire(libvirt, "sender", OWN, bridge) as found:
                yield found
            libvirt.remove_domains()
        set_policy(LEFT_ALONE)

    @pytest.mark.parametrize("frame", HONEST.values(), ids=HONEST)
    def test_an_honest_one_arrives(self, tap: Wire, frame: bytes) -> None:
        assert tap.passes(frame) == [frame]

    @pytest.mark.parametrize("frame", NEVER.values(), ids=NEVER)
    def test_a_forged_one_does_not(self, tap: Wire, frame: bytes) -> None:
        assert tap.passes(frame) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_priority_tag_passes_if_the_backend_looks_behind_it(
    warden: Warden, bridge: str, backend: str
) -> None:
    set_policy(policy(backend))
    warden.started("windows", nics=[Nic(OWN, bridge, queues=2)])
    with wire(warden.libvirt, "windows", OWN, bridge) as tap:
        frames = [*PRIORITIES.values()]
        assert tap.passes(*frames) == (frames if backend == "nftables" else [])
    assert warden.status("windows")["breaches"] == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_virtual_router_has_its_own_mac_and_the_one_that_the_policy_lists(
    warden: Warden, bridge: str, backend: str
) -> None:
    """Of keepalived with use_vmac; both of its VMs may run on one host."""
    virtual, other = "00:00:5e:00:01:0a", "00:00:5e:00:01:0b"
    listed = f'[[domain]]\nmatch = "router*"\n[domain.nics.0]\nmacs = ["{virtual.upper()}"]'
    set_policy(policy(backend, listed))
    warden.started("router1", nics=[Nic(OWN, bridge, queues=2)])
    warden.started("router2", nics=[Nic(VICTIM, bridge, queues=2)])
    for name, mac, others in (("router1", OWN, VICTIM), ("router2", VICTIM, OWN)):
        with wire(warden.libvirt, name, mac, bridge) as tap:
            honest = [
                *(plain(each) for each in (mac, virtual)),
                *(arp(each, each, OWN_IP, OWN_IP) for each in (mac, virtual)),
            ]
            assert tap.passes(*honest) == honest
            forged = [
                *(plain(each) for each in (others, other)),
                *(arp(mac, each, OWN_IP, OWN_IP) for each in (others, other)),
            ]
            assert tap.passes(*forged) == []
        assert warden.status(name)["breaches"] == []


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("keys", "allowed"),
    [
        (["mac_spoofing"], SPOOFED_MAC),
        (["arp_spoofing"], SPOOFED_ARP),
        # Behind two tags nobody can look for ARP.
        (["arp_spoofing", "vlan_tags"], SPOOFED_ARP | TAGGED),
    ],
    ids=["mac", "arp", "arp and vlan"],
)
def test_what_the_policy_allows_arrives_and_nothing_else_does(
    warden: Warden, bridge: str, backend: str, keys: list[str], allowed: dict[str, bytes]
) -> None:
    set_policy(policy(backend, *(f'{key} = "allow"' for key in keys)))
    warden.started("router", nics=[Nic(OWN, bridge, queues=2)])
    with wire(warden.libvirt, "router", OWN, bridge) as tap:
        assert tap.passes(*FORGED.values()) == [*allowed.values()]
    assert warden.status("router")["breaches"] == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_vms_are_each_held_to_their_own_address(
    warden: Warden, bridge: str, backend: str
) -> None:
    set_policy(policy(backend))
    warden.started("one", nics=[Nic(OWN, bridge, queues=2)])
    warden.started("two", nics=[Nic(VICTIM, bridge, queues=2)])
    with (
        wire(warden.libvirt, "one", OWN, bridge) as first,
        wire(warden.libvirt, "two", VICTIM, bridge) as second,
    ):
        assert first.passes(plain(VICTIM), plain(OWN)) == [plain(OWN)]
        assert second.passes(plain(VICTIM), plain(OWN)) == [plain(VICTIM)]
        warden.libvirt.destroy("two")
        assert first.passes(plain(VICTIM), plain(OWN)) == [plain(OWN)]
        assert warden.status("one")["breaches"] == []


def test_a_clone_with_the_mac_of_a_running_vm_is_refused_until_it_has_its_own(
    warden: Warden, bridge: str
) -> None:
    set_policy(ENFORCING)
    warden.started("web01", nics=[Nic(OWN, bridge)])
    warden.enrolled("web02", nics=[Nic(OWN.upper(), bridge)])
    line = warden.refusal("web02")
    assert f"NIC {OWN}" in line
    assert f"domain web01 runs with the same MAC address on bridge {bridge}" in line
    said = warden.command("enrol", "web02", check=False)
    assert "web01 runs with the same MAC address" in said.stdout + said.stderr
    edited = re.sub(r"<mac address='[^']*'/>", "", warden.libvirt.virsh("dumpxml", "web02").stdout)
    warden.libvirt.define(edited)
    warden.libvirt.start("web02")
    assert warden.status("web01")["breaches"] == warden.status("web02")["breaches"] == []


def test_a_running_vm_without_virt_warden_is_a_twin_too_and_one_on_another_bridge_is_not(
    warden: Warden, bridge: str
) -> None:
    set_policy('managed = ["web*"]\n')
    warden.libvirt.define(domain_xml("other", nics=[Nic(OWN, bridge)]))
    warden.libvirt.start("other")
    warden.enrolled("web01", nics=[Nic(OWN, bridge)])
    assert "domain other runs with the same MAC address" in warden.refusal("web01")
    with network.bridge("br-elsewhere") as elsewhere:
        warden.started("web02", nics=[Nic(OWN, elsewhere)])
        assert warden.status("web02")["breaches"] == []
        warden.libvirt.destroy("web02")
    warden.libvirt.destroy("other")
    warden.libvirt.start("web01")


def test_where_both_may_run_status_tells_of_each(warden: Warden, bridge: str) -> None:
    set_policy(f'{ENFORCING}mode = "permissive"\n')
    for name, other in (("web01", ""), ("web02", "web01")):
        warden.started(name, nics=[Nic(OWN, bridge)])
        if other:
            (breach,) = warden.status(other)["breaches"]
            assert f"domain {name} runs with the same MAC address on bridge {bridge}" in breach
    (breach,) = warden.status("web02")["breaches"]
    assert "domain web01 runs with the same MAC address" in breach


def test_an_attached_nic_with_the_mac_of_another_vm_stays_shut_out(
    warden: Warden, bridge: str
) -> None:
    set_policy(ENFORCING)
    warden.started("web01", nics=[Nic(OWN, bridge)])
    warden.started("web02", nics=[Nic(VICTIM, bridge)])
    attach = ("attach-interface", "web02", "bridge", bridge, "--mac", OWN, "--target", "twin")
    warden.libvirt.virsh(*attach, "--live")
    said = warden.command("network", "admit", check=False)
    assert "web01 runs with the same MAC address" in said.stdout + said.stderr
    assert "tap twin is shut out" in "".join(warden.status("web02")["breaches"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_rule_is_left_after_the_stop(warden: Warden, bridge: str, backend: str) -> None:
    make_base_chains()
    before = rules()
    set_policy(policy(backend))
    warden.started("one", nics=[Nic(OWN, bridge)])
    assert OWN in "".join(rules())
    warden.libvirt.destroy("one")
    assert rules() == before


FLUSHES = {
    "nftables": ("nft", "flush", "chain", "netdev", "virt-warden", "vmw-own"),
    "ebtables": ("ebtables", "-t", "nat", "-F", "vmw-own"),
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_rules_that_are_gone_are_a_breach_and_harm_no_stop(
    warden: Warden, bridge: str, backend: str
) -> None:
    set_policy(policy(backend))
    warden.started("one", nics=[Nic(OWN, bridge, tap="own")])
    run(*FLUSHES[backend])
    assert "rules are gone from" in warden.status("one")["breaches"][0]
    warden.libvirt.destroy("one")
    assert "vmw-own" not in "".join(rules())
    assert warden.status("one")["breaches"] == []


@pytest.mark.parametrize(("first", "then"), [BACKENDS, BACKENDS[::-1]])
def test_a_policy_that_names_another_backend_breaks_no_promise_of_a_running_vm(
    warden: Warden, bridge: str, first: str, then: str
) -> None:
    set_policy(policy(first))
    warden.started("one", nics=[Nic(OWN, bridge, tap="own")])
    set_policy(policy(then))
    assert warden.status("one")["breaches"] == []
    run(*FLUSHES[first])
    assert "rules are gone from" in warden.status("one")["breaches"][0]


def rules() -> list[str]:
    listings = (("nft", "list", "ruleset"), ("ebtables", "-t", "nat", "-L"))
    return [run(*listing).stdout for listing in listings]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("next_backend", BACKENDS)
def test_a_release_that_comes_late_leaves_the_filter_of_the_taps_next_owner(
    warden: Warden, bridge: str, backend: str, next_backend: str
) -> None:
    set_policy(policy(backend))
    warden.started("crashed", nics=[Nic(VICTIM, bridge, queues=2, tap="again")])
    uuid = warden.status("crashed")["uuid"]
    set_policy(policy(next_backend))
    warden.enrolled("next", nics=[Nic(OWN, bridge, queues=2, tap="again")])
    with journal.locked(PATHS, uuid):
        warden.kill("crashed")
        warden.libvirt.start("next")
    warden.await_release(uuid)
    with wire(warden.libvirt, "next", OWN, bridge) as tap:
        assert tap.passes(plain(VICTIM), plain(OWN)) == [plain(OWN)]
    assert warden.status("next")["breaches"] == []
    warden.libvirt.destroy("next")
    assert "vmw-again" not in "".join(rules())


UNTAPPED = {
    "user": f"<interface type='user'><mac address='{OWN}'/></interface>",
    "direct": "<interface type='direct'><source dev='lo' mode='bridge'/>"
    f"<mac address='{OWN}'/></interface>",
}


@pytest.mark.parametrize("kind", UNTAPPED)
def test_a_nic_that_nothing_can_filter_is_refused_unless_the_policy_allows_it(
    warden: Warden, kind: str
) -> None:
    warden.enrolled("web01", extra_devices=UNTAPPED[kind])
    assert f"NIC {OWN}" in warden.refusal("web01")
    set_policy(f'{ENFORCING}[[domain]]\nmatch = "web01"\nnetwork.untapped = "allow"\n')
    # A host without macvtap cannot start the second one all the same.
    said = warden.libvirt.virsh("start", "web01", check=kind == "user").stderr
    assert "virt-warden refuses" not in said

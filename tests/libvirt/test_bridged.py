# SPDX-License-Identifier: GPL-2.0-or-later
"""A host's IP firewall that drops what bridges forward: the audit says so, and its fix works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether

from tests.host.command import run
from tests.host.domain import Nic
from tests.libvirt.test_audit import audit
from tests.libvirt.warden import ENFORCING, Warden, set_policy
from tests.libvirt.wire import wire

OWN = "52:54:00:00:00:01"
ALL = "ff:ff:ff:ff:ff:ff"
IP_FRAMES = {
    "ip": bytes(Ether(src=OWN, dst=ALL) / IP(src="192.0.2.1", dst="192.0.2.2") / ICMP()),
    "ip6": bytes(
        Ether(src=OWN, dst=ALL) / IPv6(src="2001:db8::1", dst="2001:db8::2") / ICMPv6EchoRequest()
    ),
}
SYSCTL = Path("/proc/sys/net/bridge")
DOCKER = (
    "iptables -N DOCKER-USER",
    "iptables -A DOCKER-USER -j RETURN",
    "iptables -I FORWARD -j DOCKER-USER",
    "iptables -A FORWARD -o docker0 -j ACCEPT",
    "iptables -P FORWARD DROP",
)
FIREWALLD = (
    "nft add table inet firewalld",
    (
        "nft add chain inet firewalld filter_FORWARD"
        " '{ type filter hook forward priority filter + 10; }'"
    ),
    "nft add chain inet firewalld filter_FORWARD_ZONES",
    "nft add rule inet firewalld filter_FORWARD ct state established,related accept",
    "nft add rule inet firewalld filter_FORWARD jump filter_FORWARD_ZONES",
    "nft add rule inet firewalld filter_FORWARD_ZONES iifname docker0 accept",
    "nft add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited",
)
WHERE_IT_MUST_BE_ON = ". Where Docker or Kubernetes needs it on, after each boot: "
# What drops frames, which, and what the audit calls it.
FIREWALLS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "docker": (DOCKER, "ip", "table ip filter, chain FORWARD"),
    "docker for IPv6": (
        tuple(line.replace("iptables", "ip6tables") for line in DOCKER),
        "ip6",
        "table ip6 filter, chain FORWARD",
    ),
    "firewalld": (FIREWALLD, "ip", "table inet firewalld, chain filter_FORWARD"),
    "firewalld for IPv6": (FIREWALLD, "ip6", "table inet firewalld, chain filter_FORWARD"),
    "the older iptables": (
        tuple(line.replace("iptables", "iptables-legacy") for line in DOCKER),
        "ip",
        "iptables-legacy, chain FORWARD",
    ),
}


@pytest.fixture(autouse=True)
def _frames_pass_the_firewall() -> Iterator[None]:
    """As where br_netfilter was loaded and nobody set it otherwise."""
    switches = [SYSCTL / f"bridge-nf-call-{tool}" for tool in ("iptables", "ip6tables")]
    before = [switch.read_text() for switch in switches]
    switch_on()
    yield
    for switch, value in zip(switches, before, strict=True):
        switch.write_text(value)
    run("nft", "flush", "ruleset")
    for tool in ("iptables-legacy", "ip6tables-legacy"):
        for words in (("-P", "FORWARD", "ACCEPT"), ("-F",), ("-X",)):
            run(tool, *words)


def switch_on() -> None:
    for tool in ("iptables", "ip6tables"):
        (SYSCTL / f"bridge-nf-call-{tool}").write_text("1")


def shell(*lines: str) -> None:
    for line in lines:
        run("sh", "-ec", line)


def item(warden: Warden, bridge: str) -> dict[str, Any]:
    return audit(warden)["host.network.bridged-frames", bridge]


@pytest.mark.parametrize("name", FIREWALLS)
def test_a_firewall_that_drops_frames_of_a_bridge_is_told_with_a_fix_that_works(
    warden: Warden, bridge: str, name: str
) -> None:
    lines, family, place = FIREWALLS[name]
    set_policy(ENFORCING)
    warden.started("web01", nics=[Nic(OWN, bridge, queues=2)])
    frame = IP_FRAMES[family]
    with wire(warden.libvirt, "web01", OWN, bridge) as tap:
        assert tap.passes(frame) == [frame]
        assert item(warden, bridge)["state"] == "good"
        shell(*lines)
        assert tap.passes(frame) == []
        found = item(warden, bridge)
        assert found["state"] == "bad"
        assert found["seen"] == f"dropped in {place}"
        for fix in found["fix"].split(WHERE_IT_MUST_BE_ON):
            switch_on()
            assert tap.passes(frame) == []
            shell(fix)
            assert tap.passes(frame) == [frame]
            assert item(warden, bridge)["state"] == "good"


def test_a_switch_of_one_bridge_is_told_too(warden: Warden, bridge: str) -> None:
    (SYSCTL / "bridge-nf-call-iptables").write_text("0")
    set_policy(ENFORCING)
    warden.started("web01", nics=[Nic(OWN, bridge, queues=2)])
    shell(*DOCKER)
    assert item(warden, bridge)["state"] == "good"
    run("ip", "link", "set", bridge, "type", "bridge", "nf_call_iptables", "1")
    frame = IP_FRAMES["ip"]
    with wire(warden.libvirt, "web01", OWN, bridge) as tap:
        assert tap.passes(frame) == []
        shell(item(warden, bridge)["fix"].partition(WHERE_IT_MUST_BE_ON)[0])
        assert tap.passes(frame) == [frame]
    assert item(warden, bridge)["state"] == "good"

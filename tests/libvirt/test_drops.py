# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest sends and may not is counted, by NIC and promise, and told."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections import Counter
from typing import Any

import pytest

from tests.host.command import run
from tests.host.domain import Nic
from tests.host.frames import ARP_REPLY, arp, ethernet, vlan
from tests.host.service import Service
from tests.host.syslog import Syslog
from tests.host.tap import inject
from tests.libvirt.warden import ENFORCING, PATHS, Warden, set_policy
from tests.libvirt.wire import plain, tap_of, wire

OWN, VICTIM = "52:54:00:00:00:01", "52:54:00:00:00:02"
OWN_IP, VICTIM_IP = "192.0.2.1", "192.0.2.2"
HONEST = (plain(OWN), arp(OWN, OWN, OWN_IP, VICTIM_IP))
FORGED = {
    "mac": (plain(VICTIM), plain(VICTIM, dst="52:54:00:00:00:03")),
    "arp": (
        arp(OWN, VICTIM, VICTIM_IP, OWN_IP),
        arp(OWN, VICTIM, VICTIM_IP, OWN_IP, operation=ARP_REPLY),
        arp(OWN, OWN, VICTIM_IP, OWN_IP),
    ),
    "vlan": (vlan(plain(OWN), 7),),
    "address": (
        ethernet(
            OWN,
            VICTIM,
            0x0800,
            bytes.fromhex("4500002e0000000040fdf6cdc0000202c0000203") + bytes(26),
        ),
    ),
}
WANTED = {promise: len(frames) for promise, frames in FORGED.items()}


@pytest.fixture(autouse=True)
def since_boot() -> None:
    """Begin as after a boot."""
    shutil.rmtree(PATHS.drops, ignore_errors=True)


def policy(backend: str) -> str:
    addresses = f'[[domain]]\nmatch = "*"\n[domain.nics.0]\naddresses = ["{OWN_IP}"]\n'
    # ebtables cannot look into neighbour discovery.
    more = 'neighbour_spoofing = "allow"\n' if backend == "ebtables" else ""
    return f'{ENFORCING}[network]\nbackend = "{backend}"\n{more}{addresses}'


def drops(warden: Warden, *names: str) -> list[dict[str, Any]]:
    return list(json.loads(warden.command("network", "drops", "--json", *names).stdout))


def counted(warden: Warden, *names: str) -> Counter[str]:
    return Counter({each["promise"]: each["frames"] for each in drops(warden, *names)})


def forge(warden: Warden, name: str) -> None:
    inject(tap_of(warden.libvirt, name), *(frame for some in FORGED.values() for frame in some))


@pytest.mark.parametrize("backend", ["nftables", "ebtables"])
def test_each_promise_counts_what_it_dropped_and_nothing_honest(
    warden: Warden, bridge: str, backend: str
) -> None:
    set_policy(policy(backend))
    warden.started("web01", nics=[Nic(OWN, bridge, queues=2)])
    warden.started("db01", nics=[Nic(VICTIM, bridge)])
    with wire(warden.libvirt, "web01", OWN, bridge) as tap:
        assert tap.passes(*HONEST) == [*HONEST]
    assert drops(warden) == []
    assert "No frame was dropped" in warden.command("network", "drops").stdout
    forge(warden, "web01")
    assert counted(warden, "web01") == WANTED
    assert counted(warden, "db01") == {}
    assert {(each["domain"], each["nic"]) for each in drops(warden)} == {("web01", OWN)}
    assert warden.status("web01")["breaches"] == []


@pytest.mark.parametrize("backend", ["nftables", "ebtables"])
def test_what_was_counted_outlives_the_rules_and_the_tap(
    warden: Warden, bridge: str, backend: str
) -> None:
    set_policy(policy(backend))
    warden.started("web01", nics=[Nic(OWN, bridge, queues=2)])
    forge(warden, "web01")
    warden.command("network", "restore")
    assert counted(warden) == WANTED
    forge(warden, "web01")
    warden.libvirt.destroy("web01")
    assert counted(warden) == {promise: 2 * frames for promise, frames in WANTED.items()}
    warden.libvirt.start("web01")
    forge(warden, "web01")
    assert counted(warden) == {promise: 3 * frames for promise, frames in WANTED.items()}


def test_the_service_logs_who_spoofs(
    warden: Warden, bridge: str, service: Service, syslog: Syslog
) -> None:
    set_policy(policy("auto"))
    warden.started("web01", nics=[Nic(OWN, bridge, queues=2)])
    forge(warden, "web01")
    for promise, frames in WANTED.items():
        line = syslog.wait_for(f"promise={promise} frames={frames} ", timeout=90)
        assert "event=spoofing domain=web01 " in line
        assert f"nics={OWN}" in line


def test_drops_can_be_followed(warden: Warden, bridge: str) -> None:
    set_policy(policy("auto"))
    warden.started("web01", nics=[Nic(OWN, bridge, queues=2)])
    command = ("/usr/sbin/virt-warden", "network", "drops", "--follow", "web01")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert following.stdout.readline().split() == [
            "DOMAIN", "NIC", "PROMISE", "FRAMES", "LAST"
        ]  # fmt: skip
        forge(warden, "web01")
        lines = [following.stdout.readline().split()[:4] for _ in WANTED]
        following.send_signal(signal.SIGINT)
        assert following.wait() == 0
    assert sorted(lines) == sorted(
        ["web01", OWN, promise, str(frames)] for promise, frames in WANTED.items()
    )


def test_a_flush_takes_along_only_what_nobody_looked_at(warden: Warden, bridge: str) -> None:
    set_policy(policy("nftables"))
    warden.started("web01", nics=[Nic(OWN, bridge, queues=2)])
    forge(warden, "web01")
    assert counted(warden) == WANTED
    run("nft", "flush", "ruleset")
    assert counted(warden) == WANTED
    warden.command("network", "restore")
    forge(warden, "web01")
    assert counted(warden) == {promise: 2 * frames for promise, frames in WANTED.items()}

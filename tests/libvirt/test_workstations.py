# SPDX-License-Identifier: GPL-2.0-or-later
"""A console's port is reached from the policy's workstations, and from nowhere else."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.host import network
from tests.host.command import run
from tests.host.domain import Vnc
from tests.host.network import Workstation
from tests.libvirt.warden import ENFORCING, Warden, as_user, set_policy

HOST4, HOST6 = "192.0.2.10", "2001:db8::10"
WEBSOCKET = "<graphics type='vnc' autoport='yes' websocket='-1' listen='::'/>"
backends = pytest.mark.parametrize("backend", ["nftables", "ebtables"])


@dataclass(frozen=True)
class Lan:
    """Two machines on one network with the host."""

    good: Workstation
    bad: Workstation


@pytest.fixture
def lan(bridge: str) -> Iterator[Lan]:
    for address in (f"{HOST4}/24", f"{HOST6}/64"):
        network.give_address(bridge, address)
    with (
        network.workstation(bridge, "192.0.2.7/24", "2001:db8::7/64") as good,
        network.workstation(bridge, "192.0.2.8/24", "2001:db8::8/64") as bad,
    ):
        yield Lan(good, bad)


def limited(*sources: str, backend: str = "auto") -> None:
    listed = ", ".join(f'"{source}"' for source in sources)
    set_policy(
        f'{ENFORCING}[console]\nlisten = ["::", "{HOST4}"]\nadmin_workstations = [{listed}]\n'
        f'[network]\nbackend = "{backend}"\n'
    )


def connect(host: str, port: int) -> None:
    socket.create_connection((host, port), 1).close()


@backends
def test_a_listed_machine_reaches_the_console_and_its_neighbour_does_not(
    warden: Warden, lan: Lan, backend: str
) -> None:
    limited("192.0.2.7", "2001:db8::7", backend=backend)
    warden.started("web01", extra_devices=WEBSOCKET)
    port = warden.vnc_port("web01")
    for host in (HOST4, HOST6):
        for tcp_port in (port, port - 5900 + 5700):
            assert lan.good.reaches(host, tcp_port)
            assert not lan.bad.reaches(host, tcp_port)
    assert warden.status("web01")["breaches"] == []


@backends
def test_the_same_holds_for_spice(warden: Warden, lan: Lan, backend: str) -> None:
    limited("192.0.2.7", backend=backend)
    graphics = f"<graphics type='spice' autoport='yes' listen='{HOST4}'/>"
    warden.started("web01", extra_devices=graphics)
    shown = warden.libvirt.virsh("domdisplay", "web01").stdout.strip()
    port = int(shown.rpartition(":")[2])
    assert lan.good.reaches(HOST4, port)
    assert not lan.bad.reaches(HOST4, port)
    assert warden.status("web01")["breaches"] == []


@backends
def test_after_the_stop_nobody_is_kept_from_the_port(
    warden: Warden, lan: Lan, backend: str
) -> None:
    limited("192.0.2.7", backend=backend)
    former = run("nft", "list", "ruleset").stdout
    warden.started("web01", vnc=Vnc(listen=HOST4))
    port = warden.vnc_port("web01")
    assert not lan.bad.reaches(HOST4, port)
    warden.libvirt.destroy("web01")
    with pytest.raises(ConnectionRefusedError):
        lan.bad.reaches(HOST4, port)
    if backend == "nftables":
        assert run("nft", "list", "ruleset").stdout == former


@pytest.mark.parametrize(("first", "then"), [("nftables", "ebtables"), ("ebtables", "nftables")])
def test_a_policy_that_names_another_firewall_breaks_no_promise_of_a_running_vm(
    warden: Warden, lan: Lan, first: str, then: str
) -> None:
    limited("192.0.2.7", backend=first)
    warden.started("web01", vnc=Vnc(listen=HOST4))
    limited("192.0.2.7", backend=then)
    assert warden.status("web01")["breaches"] == []
    limited("192.0.2.8", backend=then)
    assert len(warden.status("web01")["breaches"]) == 1


def test_an_ip_version_without_any_address_in_the_list_is_closed(warden: Warden, lan: Lan) -> None:
    limited("192.0.2.0/24")
    warden.started("web01", vnc=Vnc(listen="::"))
    port = warden.vnc_port("web01")
    assert lan.bad.reaches(HOST4, port)
    assert not lan.good.reaches(HOST6, port)


@backends
def test_users_of_the_host_are_kept_out_unless_the_list_has_its_own_addresses(
    warden: Warden, lan: Lan, backend: str
) -> None:
    """Such as the user of a guest that broke out, or whoever owns the host's web server."""
    limited("192.0.2.7", backend=backend)
    warden.started("web01", vnc=Vnc(listen=HOST4))
    warden.started("evil")
    port = warden.vnc_port("web01")
    for who in ("nobody", "vmw-evil"):
        assert "Error" in as_user(who, lambda: connect(HOST4, port))
    connect(HOST4, port)
    limited(HOST4, backend=backend)
    warden.libvirt.destroy("web01")
    warden.libvirt.start("web01")
    port = warden.vnc_port("web01")
    assert as_user("nobody", lambda: connect(HOST4, port)) == ""


def test_two_domains_have_each_their_own_list(warden: Warden, lan: Lan) -> None:
    limited("192.0.2.7")
    warden.started("web01", vnc=Vnc(listen=HOST4))
    limited("192.0.2.8")
    warden.started("web02", vnc=Vnc(listen=HOST4))
    one, two = warden.vnc_port("web01"), warden.vnc_port("web02")
    assert (lan.good.reaches(HOST4, one), lan.good.reaches(HOST4, two)) == (True, False)
    assert (lan.bad.reaches(HOST4, one), lan.bad.reaches(HOST4, two)) == (False, True)
    warden.libvirt.destroy("web02")
    assert (lan.good.reaches(HOST4, one), lan.bad.reaches(HOST4, one)) == (True, False)


@pytest.mark.parametrize(
    "meddle",
    [
        "delete table inet {table}",
        "add element inet {table} sources4 {{ 192.0.2.8 }}",
        "flush chain inet {table} input",
        "insert rule inet {table} input accept",
    ],
)
def test_rules_that_somebody_changed_are_a_breach(warden: Warden, lan: Lan, meddle: str) -> None:
    limited("192.0.2.7")
    warden.started("web01", vnc=Vnc(listen=HOST4))
    assert warden.status("web01")["breaches"] == []
    table = f"vmw-console-{warden.status('web01')['uuid']}"
    run("nft", *meddle.format(table=table).split())
    assert "nft" in " ".join(warden.status("web01")["breaches"])


@backends
def test_what_is_flushed_comes_back_with_all_other_rules(
    warden: Warden, lan: Lan, backend: str
) -> None:
    limited("192.0.2.7", backend=backend)
    warden.started("web01", vnc=Vnc(listen=HOST4))
    port = warden.vnc_port("web01")
    run("nft", "flush", "ruleset")
    assert lan.bad.reaches(HOST4, port)
    assert "the consoles of 1 VMs" in warden.command("network", "restore").stdout
    assert not lan.bad.reaches(HOST4, port)
    assert lan.good.reaches(HOST4, port)
    assert warden.status("web01")["breaches"] == []


def test_a_stopped_vm_leaves_no_port_to_restore(warden: Warden, lan: Lan) -> None:
    limited("192.0.2.7")
    warden.started("web01", vnc=Vnc(listen=HOST4))
    warden.libvirt.destroy("web01")
    former = run("nft", "list", "ruleset").stdout
    assert "the consoles of 0 VMs" in warden.command("network", "restore").stdout
    assert run("nft", "list", "ruleset").stdout == former


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("bridge virt-warden", "the gate is down"),
        ("inet vmw-console-{uuid}", "is dormant"),
    ],
)
def test_a_table_that_somebody_made_dormant_is_a_breach_until_it_is_restored(
    warden: Warden, lan: Lan, table: str, reason: str
) -> None:
    limited("192.0.2.7")
    warden.started("web01", vnc=Vnc(listen=HOST4))
    where = table.format(uuid=warden.status("web01")["uuid"])
    run("nft", f"add table {where} {{ flags dormant; }}")
    assert reason in " ".join(warden.status("web01")["breaches"])
    warden.command("network", "restore")
    assert warden.status("web01")["breaches"] == []

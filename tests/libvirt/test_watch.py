# SPDX-License-Identifier: GPL-2.0-or-later
"""virt-warden.service restores the rules of running VMs when somebody takes them away."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.host.command import run
from tests.host.domain import Nic, Vnc
from tests.host.service import Service
from tests.host.service import service as running_service
from tests.host.syslog import Syslog
from tests.libvirt.warden import ENFORCING, Warden, set_policy, until
from virtwarden import gate
from virtwarden.changes import restoring
from virtwarden.changes.restoring import Kind
from virtwarden.paths import Paths
from virtwarden.system import nftlink
from virtwarden.system.nft import nft
from virtwarden.watch.alive import is_watched
from virtwarden.watch.pace import Pace

PATHS = Paths()
OWN = "52:54:00:00:00:01"
SECONDS = 20
OTHERS = """
table inet firewall {
  set blocked { type ipv4_addr; elements = { 192.0.2.99 }; }
  chain input { type filter hook input priority 0; policy accept; ip saddr @blocked drop; }
}
"""


def ruleset() -> str:
    """The kernel's rules; the order of tables and of elements differs each time."""
    listed = run("nft", "--stateless", "list", "ruleset").stdout
    elements = r"elements = \{[^}]*\}"
    listed = re.sub(elements, lambda m: " ".join(sorted(re.split(r"[\s,]+", m[0]))), listed)
    return "\n".join(sorted(filter(None, listed.splitlines())))


def policy(backend: str = "auto", more: str = "") -> None:
    set_policy(
        f'{ENFORCING}[network]\nbackend = "{backend}"\n'
        f'[console]\nlisten = ["192.0.2.10"]\nadmin_workstations = ["192.0.2.7"]\n{more}'
    )


@contextmanager
def watching() -> Iterator[Service]:
    """The service, which watches already."""
    with running_service() as running:
        until(lambda: is_watched(PATHS))
        yield running


@pytest.fixture(name="service")
def _service(warden: Warden, service: Service) -> Service:
    """The same, which has seen to all domains too."""
    until(lambda: is_watched(PATHS))
    return service


@pytest.fixture
def host(bridge: str) -> str:
    """A bridge with an address for consoles."""
    run("ip", "address", "add", "192.0.2.10/24", "dev", bridge)
    return bridge


def started(warden: Warden, name: str, bridge: str, mac: str = OWN) -> None:
    nic = Nic(mac, bridge, tap=f"tap-{name}")
    warden.started(name, nics=[nic], vnc=Vnc(listen="192.0.2.10"))


FLUSHES = {
    "everything": (["nft", "flush", "ruleset"],),
    "a table": (["nft", "delete", "table", "bridge", "virt-warden"],),
    "a tap's chain": (["nft", "flush", "chain", "netdev", "virt-warden", "vmw-tap-web01"],),
    "the limits": (["nft", "flush", "chain", "inet", "vmw-reach", "output"],),
    "a dormant table": (["nft", "add table netdev virt-warden { flags dormant; }"],),
    "an open gate": (["nft", "insert", "rule", "bridge", "virt-warden", "prerouting", "accept"],),
}


@pytest.mark.parametrize("commands", FLUSHES.values(), ids=FLUSHES)
def test_what_somebody_takes_away_is_back_at_once_and_the_log_says_who_did_it(
    warden: Warden, syslog: Syslog, host: str, commands: list[list[str]]
) -> None:
    policy()
    with watching():
        started(warden, "web01", host)
        before = ruleset()
        syslog.clear()
        for command in commands:
            run(*command)
        line = syslog.wait_for("event=restored ", SECONDS)
        assert re.search(r'by="nft\[\d+\]"', line)
        assert ruleset() == before
        assert warden.status("web01")["breaches"] == []
        warden.libvirt.destroy("web01")
        assert "vmw-tap" not in ruleset()


def test_the_rules_of_a_console_that_somebody_changed_are_back(
    warden: Warden, syslog: Syslog, service: Service, host: str
) -> None:
    policy()
    started(warden, "web01", host)
    before = ruleset()
    table = f"vmw-console-{warden.status('web01')['uuid']}"
    syslog.clear()
    run("nft", "flush", "chain", "inet", table, "input")
    assert "rules=consoles" in syslog.wait_for("event=restored ", SECONDS)
    assert ruleset() == before


def test_under_ebtables_and_iptables_it_is_the_same(
    warden: Warden, syslog: Syslog, service: Service, host: str
) -> None:
    policy("ebtables")
    started(warden, "web01", host)
    before = ruleset()
    for command in (
        ("ebtables", "-t", "nat", "-F"),
        ("ebtables", "-F"),
        ("iptables", "-F"),
        ("nft", "flush", "ruleset"),
    ):
        syslog.clear()
        run(*command)
        assert "by=" in syslog.wait_for("event=restored ", SECONDS)
        until(lambda: warden.status("web01")["breaches"] == [])
    assert ruleset().count("vmw-tap-web01") == before.count("vmw-tap-web01")


def test_an_admins_own_rules_are_not_touched_and_cost_no_restoration(
    warden: Warden, syslog: Syslog, service: Service, host: str
) -> None:
    policy()
    run("nft", "flush", "ruleset")  # what other tools left
    started(warden, "web01", host)
    run("nft", "-f", "-", stdin=OTHERS)
    before = ruleset()
    syslog.clear()
    # As Debian's nftables.service does it: a flush and the admin's own rules in one transaction.
    run("nft", "-f", "-", stdin=f"flush ruleset\n{OTHERS}")
    syslog.wait_for("event=restored ", SECONDS)
    assert ruleset() == before
    syslog.clear()
    run("nft", "add", "element", "inet", "firewall", "blocked", "{ 192.0.2.98 }")
    run("nft", "delete", "table", "inet", "firewall")
    run("nft", "delete", "table", "netdev", "virt-warden")
    syslog.wait_for("event=restored ", SECONDS)
    assert "firewall" not in ruleset()
    assert sum("event=restored" in line for line in syslog.lines()) == 1


def test_starts_and_stops_without_the_service_are_no_restoration(
    warden: Warden, syslog: Syslog, host: str
) -> None:
    """A hook that does the work itself is a process that the service does not know."""
    policy()
    with watching():
        started(warden, "web01", host)
        hidden = PATHS.hook_socket.with_suffix(".hidden")
        PATHS.hook_socket.rename(hidden)
        started(warden, "web02", host, "52:54:00:00:00:02")
        warden.libvirt.destroy("web02")
        hidden.rename(PATHS.hook_socket)
        run("nft", "flush", "ruleset")
        syslog.wait_for("event=restored ", SECONDS)
        assert sum("event=restored" in line for line in syslog.lines()) == 1


def test_what_was_flushed_while_nobody_watched_is_back_when_the_service_starts(
    warden: Warden, syslog: Syslog, host: str
) -> None:
    policy()
    started(warden, "web01", host)
    before = ruleset()
    run("nft", "flush", "ruleset")
    with watching():
        assert "by=unknown" in syslog.wait_for("event=restored ", SECONDS)
        assert ruleset() == before


def test_a_vm_that_started_under_a_version_without_notes_has_its_consoles_rules_back(
    warden: Warden, syslog: Syslog, host: str
) -> None:
    policy()
    started(warden, "web01", host)
    before = ruleset()
    (PATHS.ports / warden.status("web01")["uuid"]).unlink()
    run("nft", "flush", "ruleset")
    with watching():
        syslog.wait_for("event=restored ", SECONDS)
        assert ruleset() == before
    warden.libvirt.destroy("web01")
    assert "vmw-console" not in ruleset()


def test_a_vm_that_is_not_guarded_keeps_its_network(
    warden: Warden, syslog: Syslog, service: Service, host: str
) -> None:
    policy(more='[[domain]]\nmatch = "off"\nmode = "disabled"\n')
    started(warden, "web01", host)
    started(warden, "off", host, "52:54:00:00:00:02")
    assert gate.shut_out(PATHS, ["tap-off"]) == []
    run("nft", "flush", "ruleset")
    syslog.wait_for("event=restored ", SECONDS)
    until(lambda: gate.shut_out(PATHS, ["tap-off"]) == [])


def test_a_nic_that_was_attached_while_the_gate_was_down_is_shut_out(
    warden: Warden, syslog: Syslog, service: Service, host: str
) -> None:
    policy()
    started(warden, "web01", host)
    with new_tap(host) as tap:
        run("nft", "flush", "ruleset")
        syslog.wait_for("event=restored ", SECONDS)
        assert [each.name for each in gate.shut_out(PATHS, [tap])] == [tap]


@contextmanager
def new_tap(bridge: str) -> Iterator[str]:
    """A tap that any user may open, which belongs to no VM that is known."""
    run("ip", "tuntap", "add", "dev", "stray0", "mode", "tap", "user", "nobody")
    try:
        run("ip", "link", "set", "stray0", "master", bridge, "up")
        yield "stray0"
    finally:
        run("ip", "link", "delete", "stray0")


def test_who_flushes_again_and_again_is_named_once_and_costs_little(
    warden: Warden, syslog: Syslog, service: Service, host: str
) -> None:
    policy()
    (listener,) = service.children()
    started(warden, "web01", host)
    syslog.clear()
    began, used = time.monotonic(), cpu_seconds(listener)
    flushes = 0
    while not any("event=contested" in line for line in syslog.lines()) or flushes < 300:
        run("nft", "flush", "ruleset")
        flushes += 1
        assert time.monotonic() < began + 120
    share = (cpu_seconds(listener) - used) / (time.monotonic() - began)
    assert share < 0.5
    contested = [line for line in syslog.lines() if "event=contested" in line]
    assert len(contested) <= 1 + (time.monotonic() - began) / 60
    assert "nft[" in contested[0]
    assert sum("event=restored" in line for line in syslog.lines()) <= 10
    until(lambda: warden.status("web01")["breaches"] == [])


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_somebody_who_fights_us_is_waited_for() -> None:
    pace = Pace()
    assert pace.rest(0.0) == 0.0
    pace.note_look(10.5, 0.5)
    assert pace.rest(10.5) == 2.0
    assert pace.rest(13.0) == 0.0
    for second in range(11):
        pace.note_restored(20.0 + second)
    assert pace.is_often
    assert pace.is_to_tell(30.0)
    assert not pace.is_to_tell(31.0)
    assert pace.is_to_tell(91.0)
    pace.note_restored(200.0)
    assert not pace.is_often


def test_the_kernel_says_who_changed_which_rules() -> None:
    with nftlink.listening() as events:
        run("nft", "-f", "-", stdin=OTHERS)
        assert events.wait(SECONDS)
        (admins,) = events.read()
        assert admins.program == "nft"
        assert ("firewall", "input") in {(each.table, each.chain) for each in admins.touched}
        nft("delete table inet firewall")
        assert events.wait(SECONDS)
        (ours,) = events.read()
        assert ours.port in nftlink.own_ports()
        assert admins.port not in nftlink.own_ports()
        opened = [*Path("/proc/self/fd").iterdir()]
        nftlink.own_ports()
        assert len([*Path("/proc/self/fd").iterdir()]) == len(opened)
        assert not events.wait(0)


def test_a_listener_that_was_told_too_much_knows_that_it_missed_something() -> None:
    with nftlink.listening() as events:
        events._socket.setsockopt(1, 8, 1)  # SO_RCVBUF
        text = "".join(f"add table inet t{number}\n" for number in range(500))
        run("nft", "-f", "-", stdin=text)
        assert events.wait(SECONDS)
        assert any(each.is_lost for each in events.read())


def test_nothing_is_looked_at_where_no_vm_was_guarded(tmp_path: Path) -> None:
    paths = Paths(run=tmp_path)
    assert restoring.restore_missing(paths, set(Kind)) == {}
    assert [*tmp_path.iterdir()] == []


def test_status_says_whether_anybody_watches(warden: Warden, host: str) -> None:
    policy()
    started(warden, "web01", host)
    said = warden.command("status").stdout
    assert "Nobody watches" in said
    assert "systemctl start virt-warden" in said
    with running_service() as service:
        until(lambda: warden.status("web01")["watched"])
        assert "Nobody watches" not in warden.command("status").stdout
        for pid in [service.pid, *service.children()]:
            os.kill(pid, signal.SIGKILL)
        service.wait()
        until(lambda: not warden.status("web01")["watched"])

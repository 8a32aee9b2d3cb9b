# SPDX-License-Identifier: GPL-2.0-or-later
"""The reach guard: QEMU sends from the host only what its XML or the policy names."""

from __future__ import annotations

from typing import Any

import pytest
import xmls
from fake_host import FakeHost, account_of, case_of, process_of, refusal, refusals, rules
from hypothesis import given
from hypothesis import strategies as st

from virtwarden.changes import LimitReach
from virtwarden.errors import HostError, Refusal
from virtwarden.guards import reach
from virtwarden.guards.base import Case, Op
from virtwarden.policy.destinations import Destination, destination
from virtwarden.system.reach import Limit, Way
from virtwarden.system.resolver import Addresses

PROCESS = process_of(account_of("vmw-web01", xmls.UUID))
ANSWERS = "answers from TCP port "


@pytest.fixture
def host() -> FakeHost:
    return FakeHost(names={"a.example": Addresses(("192.0.2.1",))})


def case(host: FakeHost, devices: str = "", op: Op = Op.START, **more: Any) -> Case:
    return case_of(xmls.domain(devices), rules(**more), host, op)


def ways(found: Case) -> list[str]:
    (change,) = reach.plan(found)
    assert isinstance(change, LimitReach)
    return [*map(str, change.ways)]


def volume(protocol: str, host: str = "name='a.example'") -> str:
    source = f"<source protocol='{protocol}' name='a'><host {host}/></source>"
    return f"<disk type='network'>{source}</disk>"


def line(kind: str, mode: str, tag: str = "serial") -> str:
    return f"<{tag} type='{kind}'><source mode='{mode}' host='192.0.2.9' service='4555'/></{tag}>"


def nic(kind: str) -> str:
    return f"<interface type='{kind}'><source address='192.0.2.9' port='5558'/></interface>"


RESOLVED = "a.example (192.0.2.1)"


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ("", []),
        ("<graphics type='vnc' port='5901'/>", [f"{ANSWERS}5901"]),
        (
            "<graphics type='vnc' port='5901' websocket='5701'/>",
            [f"{ANSWERS}5901", f"{ANSWERS}5701"],
        ),
        ("<graphics type='spice' port='-1' tlsPort='5902'/>", [f"{ANSWERS}5902"]),
        ("<graphics type='vnc' port='5901' listen='127.0.0.1'/>", [f"{ANSWERS}5901 at 127.0.0.1"]),
        ("<graphics type='vnc' port='5901' listen='::'/>", [f"{ANSWERS}5901"]),
        ("<graphics type='vnc' port='5901' listen='0.0.0.0'/>", [f"{ANSWERS}5901 at 0.0.0.0/0"]),
        (
            "<graphics type='vnc' port='5901' listen='a.example'/>",
            [f"{ANSWERS}5901 at 192.0.2.1"],
        ),
        ("<graphics type='vnc' port='-1' autoport='yes'/>", []),
        ("<graphics type='vnc' socket='/run/a'/>", []),
        (volume("nbd"), [f"TCP port 10809 of {RESOLVED}"]),
        (volume("nbd", "name='a.example' port='1234'"), [f"TCP port 1234 of {RESOLVED}"]),
        (volume("nbd", "name='192.0.2.3'"), ["TCP port 10809 of 192.0.2.3 (192.0.2.3)"]),
        (volume("nbd", "transport='unix' socket='/run/a'"), []),
        (volume("iscsi"), [f"TCP port 3260 of {RESOLVED}"]),
        (volume("https"), [f"TCP port 443 of {RESOLVED}"]),
        (volume("ssh"), [f"TCP port 22 of {RESOLVED}"]),
        (volume("nfs"), [f"to {RESOLVED}"]),
        (volume("tftp"), [f"to {RESOLVED}"]),
        (volume("gluster", "name='a.example' port='24007'"), [f"to {RESOLVED}"]),
        (volume("unheard-of"), [f"TCP to {RESOLVED}"]),
        (
            f"<disk><backingStore>{volume('http')[21:-7]}</backingStore></disk>",
            [f"TCP port 80 of {RESOLVED}"],
        ),
        (
            f"<hostdev type='scsi'>{volume('iscsi')[21:-7]}</hostdev>",
            [f"TCP port 3260 of {RESOLVED}"],
        ),
        (line("tcp", "bind"), [f"{ANSWERS}4555 at 192.0.2.9"]),
        (line("tcp", "connect"), ["TCP port 4555 of 192.0.2.9"]),
        (line("udp", "connect"), ["UDP port 4555 of 192.0.2.9"]),
        (line("udp", "bind"), []),
        (
            f"<rng><backend model='egd' type='tcp'>{line('tcp', 'connect')[19:-9]}</backend></rng>",
            ["TCP port 4555 of 192.0.2.9"],
        ),
        (nic("client"), ["TCP port 5558 of 192.0.2.9"]),
        (nic("server"), [f"{ANSWERS}5558 at 192.0.2.9"]),
        (nic("mcast"), ["UDP port 5558 of 192.0.2.9"]),
        (nic("udp"), ["UDP port 5558 of 192.0.2.9"]),
        ("<interface type='bridge'><source bridge='br0'/></interface>", []),
    ],
)
def test_what_the_xml_needs_is_let_out_and_no_more(
    host: FakeHost, devices: str, expected: list[str]
) -> None:
    found = [each.replace("192.0.2.3 (192.0.2.3)", "192.0.2.3") for each in expected]
    assert ways(case(host, devices)) == found


def test_a_console_that_is_switched_off_answers_nobody(host: FakeHost) -> None:
    assert ways(case(host, "<graphics type='vnc' port='5901'/>", display="off")) == []


def test_a_name_that_servers_must_be_asked_for_lets_qemu_ask_them(host: FakeHost) -> None:
    host.names["a.example"] = Addresses(("192.0.2.1",), ("192.0.2.53",))
    assert ways(case(host, volume("nbd"))) == [
        f"TCP port 10809 of {RESOLVED}",
        "port 53 of 192.0.2.53",
    ]


def test_the_policy_names_more_hosts_and_ports(host: FakeHost) -> None:
    found = case(host, hosts=("192.0.2.0/24:1-5", "2001:db8::7"), tcp_bind=(49152,))
    assert ways(found) == [f"{ANSWERS}49152", "ports 1-5 of 192.0.2.0/24", "to 2001:db8::7/128"]


def test_an_arriving_domain_answers_at_the_ports_of_migration(host: FakeHost) -> None:
    host.arriving[xmls.UUID] = (49152, 49215)
    assert ways(case(host)) == ["answers from TCP ports 49152-49215 to other hosts and root"]


@pytest.mark.parametrize(
    ("devices", "more"),
    [("", {"host_network": "allow"}), ("<interface type='user'/>", {"untapped": "allow"})],
)
def test_what_may_send_anything_has_no_limit(
    host: FakeHost, devices: str, more: dict[str, Any]
) -> None:
    found = case(host, devices, **more)
    assert reach.plan(found) == []
    assert reach.verify(found, PROCESS) == []


@pytest.mark.parametrize("op", [Op.PREPARE, Op.AHEAD, Op.STARTED])
def test_no_limit_is_laid_before_the_ports_are_known_or_while_it_runs(
    host: FakeHost, op: Op
) -> None:
    assert reach.plan(case(host, op=op)) == []


# Refusals


def test_a_host_without_nftables_is_refused(host: FakeHost) -> None:
    host.limits_reach = False
    line = refusal(reach, case(host, op=Op.PREPARE))
    assert "nftables does not work on this host" in line
    assert 'host_network = "allow"' in line
    assert refusals(reach, case(host, op=Op.PREPARE, host_network="allow")) == []


def test_a_name_without_an_address_is_refused(host: FakeHost) -> None:
    line = refusal(reach, case(host, volume("nbd", "name='b.example'"), Op.PREPARE))
    assert "no address is known for 'b.example'" in line
    assert "virsh edit" in line
    with pytest.raises(Refusal):
        reach.plan(case(host, volume("nbd", "name='b.example'")))


def test_a_ceph_disk_needs_the_policys_hosts(host: FakeHost) -> None:
    disk = volume("rbd", "name='192.0.2.1'")
    assert "names" not in refusal(reach, case(host, disk, Op.PREPARE))
    assert refusals(reach, case(host, disk, Op.PREPARE, hosts=("192.0.2.0/24",))) == []
    assert ways(case(host, disk, hosts=("192.0.2.0/24",)))[:2] == [
        "TCP port 3300 of 192.0.2.1",
        "TCP port 6789 of 192.0.2.1",
    ]


# Breaches


def limit(*found: Way) -> Limit:
    return Limit(xmls.UUID, 70000, found)


def test_a_running_domain_without_a_limit_is_a_breach(host: FakeHost) -> None:
    (breach,) = reach.verify(case(host), PROCESS)
    assert "nothing limits what QEMU sends" in breach


def test_rules_that_are_gone_are_a_breach(host: FakeHost) -> None:
    host.limits[xmls.UUID] = limit()
    assert reach.verify(case(host), PROCESS) == []
    host.lost_limits[xmls.UUID] = "it is gone"
    assert reach.verify(case(host), PROCESS) == ["it is gone (virt-warden network restore)"]


def test_a_host_that_the_policy_no_longer_names_is_a_breach(host: FakeHost) -> None:
    found = "192.0.2.9/32"
    host.limits[xmls.UUID] = limit(
        Way("any", found, (found,)), Way("any", "192.0.2.53", ("192.0.2.53",), 53, 53)
    )
    assert reach.verify(case(host, hosts=("192.0.2.9",)), PROCESS) == []
    (breach,) = reach.verify(case(host), PROCESS)
    assert "any more: to 192.0.2.9/32" in breach


# The policy's notation


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("192.0.2.5", Destination("192.0.2.5/32")),
        ("192.0.2.0/24", Destination("192.0.2.0/24")),
        ("192.0.2.5:22", Destination("192.0.2.5/32", 22, 22)),
        ("192.0.2.0/24:3260-3261", Destination("192.0.2.0/24", 3260, 3261)),
        ("2001:db8::5", Destination("2001:db8::5/128")),
        ("2001:db8::/32", Destination("2001:db8::/32")),
        ("[2001:db8::5]:10809", Destination("2001:db8::5/128", 10809, 10809)),
        ("[2001:db8::/32]:1-65535", Destination("2001:db8::/32", 1, 65535)),
        ("[2001:db8::5]", Destination("2001:db8::5/128")),
    ],
)
def test_a_destination_is_read(written: str, expected: Destination) -> None:
    assert destination(written) == expected


@pytest.mark.parametrize(
    "written",
    [
        *("a.example", "", "192.0.2.5:", "192.0.2.5:0", "192.0.2.5:65536", "192.0.2.5:9-8"),
        *("192.0.2.5/24", "[192.0.2.5]:80", "192.0.2.5:80:80", "[2001:db8::5]80", "*", "fe80::1%a"),
        *("192.0.2.5:٣", "1.2.3", "192.0.2.5 accept", "192.0.2.5\n"),
    ],
)
def test_anything_else_is_no_destination(written: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the policy's reader tells it in its own words
        destination(written)


# What becomes part of a rule's text

TEXTS = st.text(min_size=1)


@given(TEXTS, TEXTS, st.integers(), st.integers())
def test_no_field_brings_words_of_its_own_into_a_rule(
    domain: str, address: str, first: int, last: int
) -> None:
    for make in (
        lambda: Limit(domain, 70000, ()),
        lambda: limit(Way("tcp", "a", (address,), first, last)),
        lambda: limit(Way(address, "a", ("192.0.2.1",), first, last)),  # type: ignore[arg-type]
    ):
        try:
            made = make()
        except HostError:
            continue
        text = " ".join(rule for way in made.ways for rule in way.rules())
        assert not set(text) - set("abcdefghijklmnopqrstuvwxyz0123456789 .:/{},()&|!=-_")


@pytest.mark.parametrize(
    "way",
    [
        Way("udp", "", (), 5900, 5900),
        Way("tcp", "", (), 0, 0),
        Way("tcp", "", ("192.0.2.1/24",), 1, 1),
        Way("tcp", "a", ("192.0.2.1/24",), 1, 1),
        Way("tcp", "a", ("fe80::1%a accept",), 1, 1),
        Way("tcp", "a", (), 2, 1),
        Way("tcp", "a", (), 1, 65536),
    ],
)
def test_what_is_no_way_is_not_laid(way: Way) -> None:
    with pytest.raises(HostError):
        limit(way)


@pytest.mark.parametrize("uid", [0, -1, "70000", True])
def test_only_a_user_is_limited(uid: Any) -> None:
    with pytest.raises(HostError):
        Limit(xmls.UUID, uid, ())

# SPDX-License-Identifier: GPL-2.0-or-later
"""The console guard: who gets to see the screen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import xmls
from fake_host import FakeHost, account_of, case_of, process_of, refusal, refusals, rules

from virtwarden.changes import IssueCertificate, RestrictPorts
from virtwarden.guards import console
from virtwarden.guards.base import Case, Op
from virtwarden.pki import consoles
from virtwarden.system import spice as spice_offer
from virtwarden.system.conf import Located
from virtwarden.system.resolver import Addresses
from virtwarden.system.vnc import Offer

SOCKET = "<graphics type='vnc'><listen type='socket' socket='/run/a.sock'/></graphics>"
OLD_SOCKET = "<graphics type='vnc' socket='/run/a.sock'/>"
NOWHERE = "<graphics type='vnc'><listen type='none'/></graphics>"
NETWORK = "<graphics type='vnc' port='5900'><listen type='network' network='lan'{}/></graphics>"
OF_TLS = Offer((19,), (261,))
SPICE_NOWHERE = NOWHERE.replace("vnc", "spice")
SPICE_SOCKET = SOCKET.replace("vnc", "spice")
GUARDED_SPICE = spice_offer.Offer(plain=False, tls=True, asks=True)


def spice(address: str = "127.0.0.1", ports: str = "port='5900'") -> str:
    listen = f"<listen type='address' address='{address}'/>"
    return f"<graphics type='spice' {ports}>{listen}</graphics>"


def case(devices: str, op: Op = Op.PREPARE, host: FakeHost | None = None, **more: Any) -> Case:
    return case_of(xmls.domain(devices), rules(**more), host or FakeHost(), op)


# Attacks


EVERYWHERE = "0.0.0.0"  # noqa: S104 - it is refused


@pytest.mark.parametrize("kind", ["vnc", "spice"])
def test_a_port_that_libvirt_alone_should_know_of_and_that_answers_is_a_breach(kind: str) -> None:
    host = FakeHost()
    written = case(spice().replace("spice", kind)).domain.displays
    made = replace(case(NOWHERE.replace("vnc", kind), Op.STARTED, host), closed=written)
    process = process_of(account_of("vmw-web01", xmls.UUID))
    assert console.verify(made, process) == []
    host.offers["127.0.0.1", 5900] = OF_TLS
    host.spice_servers["127.0.0.1", 5900] = GUARDED_SPICE
    (breach,) = console.verify(made, process)
    assert "127.0.0.1 port 5900 answers, but libvirt alone shows it" in breach


@pytest.mark.parametrize("address", [EVERYWHERE, "::", "10.0.0.1", "localhost", "127.0.0.2"])
@pytest.mark.parametrize("op", [Op.PREPARE, Op.START])
def test_vnc_listens_nowhere_but_where_the_policy_lets_it(address: str, op: Op) -> None:
    line = refusal(console, case(xmls.vnc(address), op))
    assert f"VNC would listen on {address}" in line
    assert "one of 127.0.0.1, ::1" in line


def test_an_old_style_address_is_looked_at_as_well() -> None:
    old = f"<graphics type='vnc' listen='{EVERYWHERE}'/>"
    assert EVERYWHERE in refusal(console, case(old))


def test_an_address_that_libvirt_fills_in_is_judged_once_it_should_be_there() -> None:
    assert refusals(console, case("<graphics type='vnc'/>", Op.PREPARE)) == []
    nowhere = refusal(console, case("<graphics type='vnc'/>", Op.START))
    assert "an address that is not known" in nowhere


def test_a_name_is_what_the_hosts_own_file_says_it_is() -> None:
    host = FakeHost(names={"localhost": Addresses(("::1", "127.0.0.1"))})
    assert refusals(console, case(xmls.vnc("localhost"), host=host)) == []
    line = refusal(console, case(xmls.vnc("localhost"), host=host, listen=("127.0.0.1",)))
    assert "VNC would listen on localhost, which is ::1 and 127.0.0.1" in line
    assert "or add ::1 to listen" in line


def test_a_name_that_name_servers_know_is_refused_whatever_they_say_now() -> None:
    host = FakeHost(names={"kvm.example": Addresses(("127.0.0.1",), ("192.0.2.53",))})
    for name in ("kvm.example", "unknown.example"):
        line = refusal(console, case(xmls.vnc(name), host=host))
        assert f"VNC would listen on {name}, a name that is not in /etc/hosts" in line
        assert "or put it into /etc/hosts" in line


def test_every_one_of_several_addresses_is_looked_at() -> None:
    both = xmls.vnc().replace("</graphics>", "<listen type='address' address='::'/></graphics>")
    assert "VNC would listen on ::;" in refusal(console, case(both))


@pytest.mark.parametrize("devices", [SOCKET, OLD_SOCKET])
def test_a_socket_is_refused_unless_the_policy_lists_it(devices: str) -> None:
    assert "VNC would listen on unix" in refusal(console, case(devices))
    assert refusals(console, case(devices, listen=("unix",))) == []


def test_the_address_of_a_libvirt_network_is_judged_once_it_is_known() -> None:
    assert refusals(console, case(NETWORK.format(""))) == []
    known = NETWORK.format(" address='192.168.122.1'")
    assert "192.168.122.1" in refusal(console, case(known, Op.START))
    assert refusals(console, case(known, Op.START, listen=("192.168.122.1",))) == []
    assert "not known" in refusal(console, case(NETWORK.format(""), Op.START))


@pytest.mark.parametrize("kind", ["sdl", "rdp", "desktop", "dbus", "unheard-of"])
def test_any_other_display_is_refused(kind: str) -> None:
    line = refusal(console, case(f"<graphics type='{kind}'/>"))
    assert f"a {kind} display" in line
    assert "type='vnc'" in line


OPEN = "<graphics type='vnc' autoport='yes'><listen type='address'/></graphics>"
LISTEN = {"vnc_listen": Located(EVERYWHERE, "/etc/libvirt/qemu.conf:12")}
BY_SOCKET = {"vnc_auto_unix_socket": Located("1", "/etc/libvirt/qemu.conf:9")}


@pytest.mark.parametrize("devices", [OPEN, "<graphics type='vnc'/>"])
def test_an_address_of_qemu_conf_is_told_before_anything_starts(devices: str) -> None:
    host = FakeHost(qemu_conf=LISTEN)
    line = refusal(console, case(devices, host=host))
    assert line == (
        "built-in default: VNC would listen on 0.0.0.0, as vnc_listen in /etc/libvirt/qemu.conf:12"
        ' says; fix: write vnc_listen = "127.0.0.1" there: systemctl restart libvirtd; or put'
        " <listen type='address' address='127.0.0.1'/> into its <graphics> (virsh edit web01); or"
        ' add "0.0.0.0" to listen'
    )
    assert refusals(console, case(devices, host=host, listen=(EVERYWHERE,))) == []
    assert refusals(console, case(xmls.vnc(), host=host)) == []


def test_an_address_of_the_xml_is_not_blamed_on_qemu_conf() -> None:
    line = refusal(console, case(xmls.vnc(EVERYWHERE), host=FakeHost(qemu_conf=LISTEN)))
    assert "qemu.conf" not in line


@pytest.mark.parametrize("op", [Op.START, Op.STARTED])
def test_once_libvirt_has_chosen_the_address_qemu_conf_is_named_too(op: Op) -> None:
    line = refusal(console, case(xmls.vnc(EVERYWHERE), op, host=FakeHost(qemu_conf=LISTEN)))
    assert "vnc_listen in /etc/libvirt/qemu.conf:12 says" in line
    assert "qemu.conf" not in refusal(console, case(xmls.vnc(EVERYWHERE), op))


def test_a_socket_that_qemu_conf_asks_for_is_told_before_anything_starts() -> None:
    host = FakeHost(qemu_conf=LISTEN | BY_SOCKET)
    line = refusal(console, case(OPEN, host=host))
    assert "VNC would listen on unix, as vnc_auto_unix_socket in /etc/libvirt/qemu.conf:9" in line
    assert 'write vnc_auto_unix_socket = 0 and vnc_listen = "127.0.0.1" there' in line
    assert refusals(console, case(OPEN, host=host, listen=("unix",))) == []


@pytest.mark.parametrize("devices", [OPEN, xmls.vnc()])
def test_where_no_address_is_allowed_none_is_told(devices: str) -> None:
    line = refusal(console, case(devices, host=FakeHost(qemu_conf=LISTEN), listen=()))
    assert "virsh edit web01: take out the whole <graphics type='vnc'>, since" in line
    assert "<listen" not in line


def test_where_only_sockets_are_allowed_the_way_to_one_is_told() -> None:
    line = refusal(console, case(OPEN, host=FakeHost(qemu_conf=LISTEN), listen=("unix",)))
    assert "write vnc_auto_unix_socket = 1 there" in line
    assert "put <listen type='socket'/> into its <graphics>" in line
    line = refusal(console, case(OPEN, listen=("unix",)))
    assert "VNC would listen on 127.0.0.1; fix: put <listen type='socket'/>" in line


BOUND_TO_SPICE = (
    "<channel type='spicevmc'/><channel type='unix'/><redirdev bus='usb' type='spicevmc'/>"
    "<redirdev bus='usb' type='spicevmc'/><redirdev bus='usb' type='tcp'/><audio type='spice'/>"
    "<smartcard mode='passthrough' type='spicevmc'/><serial type='spiceport'/>"
)
NAMED = (
    "<channel type='spicevmc'>, 2 <redirdev type='spicevmc'>, <audio type='spice'>,"
    " <smartcard type='spicevmc'>, <serial type='spiceport'>"
)


def test_the_whole_way_from_spice_to_vnc_is_told() -> None:
    asked = case("<graphics type='spice'/>" + BOUND_TO_SPICE, client_certificates="required")
    assert refusal(console, asked).endswith(
        "or virsh edit web01: take out the whole <graphics type='spice'>, and what goes with"
        f" it: {NAMED}; put <graphics type='vnc'/> there"
    )


@pytest.mark.parametrize("address", [EVERYWHERE, "::", "192.0.2.1"])
@pytest.mark.parametrize("op", [Op.PREPARE, Op.START])
def test_spice_listens_nowhere_but_where_the_policy_lets_it(address: str, op: Op) -> None:
    line = refusal(console, case(spice(address), op))
    assert f"SPICE would listen on {address}" in line


def test_spice_at_a_socket_has_no_tls() -> None:
    unix = {"listen": ("unix",)}
    line = refusal(console, case(SPICE_SOCKET, **unix))
    assert "SPICE has no TLS at a Unix socket" in line
    assert "<listen type='none'/>" in line
    assert refusals(console, case(SPICE_SOCKET, tls="off", **unix)) == []


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({"client_certificates": "required"}, "SPICE asks viewers for no certificate"),
        ({"sasl": "kerberos", "operators": ("ann",)}, "not operators alone"),
    ],
)
def test_what_spice_cannot_do_is_refused_with_every_way_out(
    asked: dict[str, Any], what: str
) -> None:
    line = refusal(console, case(spice(), Op.START, **asked))
    assert what in line
    assert "virt-warden enrol --console libvirt web01" in line
    assert "under [domain.console] for it" in line
    assert "put <graphics type='vnc'/> there" in line
    assert refusals(console, case(SPICE_NOWHERE, Op.START, **asked)) == []


def test_spice_with_gl_is_refused_at_a_port_alone() -> None:
    gl = "<gl enable='yes'/></graphics>"
    line = refusal(console, case(spice().replace("</graphics>", gl)))
    assert "with <gl> at no TCP port" in line
    assert refusals(console, case(SPICE_NOWHERE.replace("</graphics>", gl))) == []


# Honest passage


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_vnc_on_a_listed_address_passes(address: str) -> None:
    assert refusals(console, case(xmls.vnc(address))) == []


@pytest.mark.parametrize("op", [Op.PREPARE, Op.START, Op.STARTED])
def test_vnc_that_listens_nowhere_passes(op: Op) -> None:
    assert refusals(console, case(NOWHERE, op)) == []


def test_a_domain_without_a_display_passes() -> None:
    assert refusals(console, case("")) == []
    assert console.plan(case("")) == []


def test_what_only_renders_passes() -> None:
    assert refusals(console, case("<graphics type='egl-headless'/>")) == []


def test_certificates_of_viewers_need_tls() -> None:
    asked = {"client_certificates": "required"}
    assert refusals(console, case(xmls.vnc(), **asked)) == []
    assert "client_certificates needs tls" in refusal(console, case(xmls.vnc(), tls="off", **asked))
    assert refusals(console, case("", tls="off", **asked)) == []


def test_a_display_that_is_off_may_say_what_it_will() -> None:
    renders = "<graphics type='egl-headless'/>"
    for devices in (xmls.vnc(EVERYWHERE), SOCKET, spice(EVERYWHERE), SPICE_SOCKET, renders):
        assert refusals(console, case(devices, display="off")) == []
        for op in (Op.PREPARE, Op.START):
            off = case(devices, op, display="off", admin_workstations=("192.0.2.7",))
            assert console.plan(off) == []


@pytest.mark.parametrize("kind", ["sdl", "unheard-of"])
def test_a_display_that_the_wrapper_does_not_take_away_is_refused_where_it_is_off(
    kind: str,
) -> None:
    off = case(f"<graphics type='{kind}'/>", display="off")
    assert 'but the policy says display = "off"' in refusal(console, off)


@pytest.mark.parametrize(
    ("backend", "works", "wanted"),
    [
        ("auto", ("nftables", "iptables"), "nftables"),
        ("auto", ("iptables",), "iptables"),
        ("nftables", ("iptables",), ""),
        ("ebtables", ("nftables", "iptables"), "iptables"),
        ("ebtables", ("nftables",), ""),
        ("auto", (), ""),
    ],
)
def test_workstations_need_a_firewall_that_works(
    backend: str, works: tuple[str, ...], wanted: str
) -> None:
    host = FakeHost(port_backends=works)
    limited = {"admin_workstations": ("192.0.2.7",), "backend": backend}
    found = refusals(console, case(xmls.vnc(), host=host, **limited))
    if not wanted:
        assert "so admin_workstations cannot be enforced" in str(found)
        assert refusals(console, case(SOCKET, host=host, listen=("unix",), **limited)) == []
        return
    assert found == []
    _, change = console.plan(case(xmls.vnc(), Op.START, host, **limited))
    assert change == RestrictPorts(xmls.UUID, wanted, (5900,), ("192.0.2.7",))
    host.lost_port_rules[xmls.UUID] = "they are gone"
    host.offers["127.0.0.1", 5900] = OF_TLS
    process = process_of(account_of("vmw-web01", xmls.UUID))
    assert console.verify(case(xmls.vnc(), Op.STARTED, host, **limited), process) == [
        "they are gone"
    ]


def test_a_console_that_another_firewall_limits_than_the_policy_names_by_now_is_limited() -> None:
    host = FakeHost(lost_port_rules={f"iptables {xmls.UUID}": "iptables has none"})
    host.offers["127.0.0.1", 5900] = OF_TLS
    process = process_of(account_of("vmw-web01", xmls.UUID))
    limited = {"admin_workstations": ("192.0.2.7",), "backend": "ebtables"}
    own = case(xmls.vnc(), Op.STARTED, host, **limited)
    assert console.verify(own, process) == []
    host.port_backends = ("iptables",)
    assert console.verify(own, process) == ["iptables has none"]


# Plan


def test_a_console_gets_a_certificate_for_all_its_names() -> None:
    (issue,) = console.plan(case(xmls.vnc("::1"), Op.START))
    assert issue == IssueCertificate(
        directory=f"/run/virt-warden/{xmls.UUID}/tls",
        user="vmw-web01",
        common_name=xmls.UUID,
        names=("kvm1", "localhost", "::1"),
    )


def test_a_certificate_for_names_that_are_known_is_planned_ahead() -> None:
    devices = xmls.vnc("::1")
    assert console.plan(case(devices, Op.AHEAD)) == console.plan(case(devices, Op.START))
    (without_address,) = console.plan(case("<graphics type='vnc'/>", Op.AHEAD))
    assert isinstance(without_address, IssueCertificate)
    assert without_address.names == ("kvm1", "localhost")


def test_a_console_at_a_socket_gets_one_too() -> None:
    (issue,) = console.plan(case(SOCKET, Op.START))
    assert isinstance(issue, IssueCertificate)
    assert issue.names == ("kvm1", "localhost")


@pytest.mark.parametrize("devices", [NOWHERE, SPICE_NOWHERE])
def test_a_console_that_libvirt_alone_opens_gets_none(devices: str) -> None:
    assert console.plan(case(devices, Op.START)) == []


def test_spice_gets_a_certificate_that_lasts_since_qemu_reads_it_once() -> None:
    (issue,) = console.plan(case(spice("::1"), Op.START))
    assert isinstance(issue, IssueCertificate)
    assert issue.names == ("kvm1", "localhost", "::1")
    assert issue.days == consoles.DAYS_WITHOUT_RENEWAL > 2 * 365


def test_workstations_alone_reach_every_port_of_spice() -> None:
    devices = spice(ports="port='5900' tlsPort='5901'")
    *_, change = console.plan(case(devices, Op.START, admin_workstations=("192.0.2.7",)))
    assert change == RestrictPorts(xmls.UUID, "nftables", (5900, 5901), ("192.0.2.7",))


def test_without_tls_or_at_another_step_there_is_none() -> None:
    assert console.plan(case(xmls.vnc(), Op.START, tls="off")) == []
    assert console.plan(case(xmls.vnc(), Op.PREPARE)) == []
    assert console.plan(case(xmls.vnc(), Op.STARTED)) == []


# Promise


def verified(offer: Offer | None, devices: str = "", **more: Any) -> list[str]:
    host = FakeHost()
    if offer is not None:
        host.offers["127.0.0.1", 5900] = offer
    own = case(devices or xmls.vnc(), Op.STARTED, host, **more)
    return console.verify(own, process_of(account_of("vmw-web01", xmls.UUID)))


def test_x509_with_a_password_alone_keeps_the_promise() -> None:
    assert verified(OF_TLS) == []


@pytest.mark.parametrize(
    ("offer", "sentence"),
    [
        (Offer((1,)), "offers security types [1]"),
        (Offer((2,)), "offers security types [2]"),
        (Offer((2, 19), (261,)), "offers security types [2, 19]"),
        (Offer(()), "offers security types []"),
        (Offer((19,), (258,)), "without x509"),
        (Offer((19,), (261, 257)), "without x509"),
        (Offer((19,), (260,)), "without a password"),
        (None, "does not answer"),
    ],
)
def test_any_other_offer_breaks_it(offer: Offer | None, sentence: str) -> None:
    (breach,) = verified(offer)
    assert sentence in breach


@pytest.mark.parametrize(
    ("offer", "breaks"), [(Offer((2,)), False), (Offer((1,)), True), (Offer((1, 2)), True)]
)
def test_without_tls_a_password_is_still_asked_for(offer: Offer, breaks: bool) -> None:
    assert bool(verified(offer, tls="off")) is breaks


def test_without_a_password_tls_is_still_asked_for() -> None:
    assert verified(Offer((19,), (260,)), password="off") == []
    assert verified(Offer((1,)), password="off")
    assert verified(Offer((1,)), password="off", tls="off") == []


@pytest.mark.parametrize("devices", [NOWHERE, xmls.vnc(port="-1"), xmls.vnc(port="")])
def test_where_nobody_can_connect_there_is_nothing_to_check(devices: str) -> None:
    assert verified(None, devices) == []


@pytest.mark.parametrize("devices", [SOCKET, OLD_SOCKET])
@pytest.mark.parametrize(("offer", "breaks"), [(OF_TLS, False), (Offer((1,)), True), (None, True)])
def test_a_socket_is_connected_to_as_well(devices: str, offer: Offer | None, breaks: bool) -> None:
    host = FakeHost(offers={("/run/a.sock", 0): offer} if offer else {})
    own = case(devices, Op.STARTED, host, listen=("unix",))
    found = console.verify(own, process_of(account_of("vmw-web01", xmls.UUID)))
    assert bool(found) is breaks
    assert all("/run/a.sock" in breach for breach in found)


def test_a_websocket_that_speaks_without_tls_breaks_it() -> None:
    host = FakeHost(offers={("127.0.0.1", 5900): OF_TLS})
    own = case(xmls.vnc().replace("port=", "websocket='5700' port="), Op.STARTED, host)
    process = process_of(account_of("vmw-web01", xmls.UUID))
    assert console.verify(own, process) == []
    host.plain_websockets.add(("127.0.0.1", 5700))
    (breach,) = console.verify(own, process)
    assert "port 5700 speaks WebSocket without TLS" in breach


def test_a_display_that_is_off_and_answers_breaks_it() -> None:
    assert verified(None, display="off") == []
    (breach,) = verified(OF_TLS, display="off")
    assert 'answers, but display = "off"' in breach


@pytest.mark.parametrize(
    ("plain", "tls", "asks", "policy", "sentence"),
    [
        (False, True, True, {}, ""),
        (True, True, True, {}, "answers viewers without TLS"),
        (True, False, True, {}, "answers viewers without TLS"),
        (False, True, False, {}, "accepts viewers without a password"),
        (False, True, False, {"password": "off"}, ""),
        (True, False, True, {"tls": "off"}, ""),
        (True, False, False, {"tls": "off"}, "accepts viewers without a password"),
        (False, True, True, {"display": "off"}, 'answers, but display = "off"'),
    ],
)
def test_spice_answers_over_tls_and_asks_or_breaks_it(
    plain: bool, tls: bool, asks: bool, policy: dict[str, str], sentence: str
) -> None:
    offer = spice_offer.Offer(plain=plain, tls=tls, asks=asks)
    host = FakeHost(spice_servers={("127.0.0.1", 5900): offer})
    found = console.verify(
        case(spice(), Op.STARTED, host, **policy), process_of(account_of("vmw-web01", xmls.UUID))
    )
    assert [breach.partition("5900 ")[2] for breach in found] == ([sentence] if sentence else [])


def test_spice_answers_at_its_tls_port_alone_where_it_has_two() -> None:
    devices = spice(ports="port='5900' tlsPort='5901'")
    process = process_of(account_of("vmw-web01", xmls.UUID))
    host = FakeHost(spice_servers={("127.0.0.1", 5901): GUARDED_SPICE})
    assert console.verify(case(devices, Op.STARTED, host), process) == []
    (breach,) = console.verify(case(devices, Op.STARTED, FakeHost()), process)
    assert "port 5901 does not answer" in breach
    host.spice_servers["127.0.0.1", 5900] = spice_offer.Offer(plain=True, tls=False, asks=True)
    (breach,) = console.verify(case(devices, Op.STARTED, host), process)
    assert "port 5900 answers viewers without TLS" in breach


def test_a_console_that_asks_for_no_certificate_breaks_it() -> None:
    host = FakeHost(offers={("127.0.0.1", 5900): OF_TLS})
    own = case(xmls.vnc(), Op.STARTED, host, client_certificates="required")
    process = process_of(account_of("vmw-web01", xmls.UUID))
    assert console.verify(own, process) == []
    host.takers_of_anyone.add(("127.0.0.1", 5900))
    (breach,) = console.verify(own, process)
    assert "asks viewers for no certificate" in breach


def test_what_another_emulator_does_is_no_promise_of_ours() -> None:
    assert verified(None, exceptions=frozenset({"emulator"})) == []

# SPDX-License-Identifier: GPL-2.0-or-later
"""Enrolment takes the port of a console on loopback away, and gives back just what was there."""

from __future__ import annotations

from typing import Any

import pytest
from lxml import etree
from test_enrolment import PATHS, altered, canonical, plain, unenrol

from virtwarden.domain.model import read
from virtwarden.enrolment import enrol as enrolment
from virtwarden.enrolment.enrol import enrol_xml

ADDRESS = "<listen type='address' address='{}'/>"
ON_LOOPBACK = [
    "<graphics type='{}'/>",
    "<graphics type='{}' port='5999' autoport='no' keymap='de'/>",
    (
        "<graphics type='{}' autoport='yes' listen='127.0.0.1'>\n  <listen type='address'"
        " address='127.0.0.1'/>\n  <x/>\n</graphics>"
    ),
    (
        "<graphics type='{}' port='-1' tlsPort='-1' websocket='-1' passwd='s3cret'>"
        "<listen type='address'/></graphics>"
    ),
    "<graphics type='{}'>" + ADDRESS.format("::1") + "<gl enable='yes'/></graphics>",
    "<graphics type='{}' listen='127.9.9.9'/>",
]
ELSEWHERE = [
    "<graphics type='{}' listen='0.0.0.0'/>",
    "<graphics type='{}'>" + ADDRESS.format("192.0.2.1") + "</graphics>",
    "<graphics type='{}'><listen type='network' network='lan'/></graphics>",
    "<graphics type='{}'><listen type='socket'/></graphics>",
    "<graphics type='{}' socket='/run/a'/>",
    "<graphics type='{}'>" + ADDRESS.format("127.0.0.1") + ADDRESS.format("::") + "</graphics>",
    "<graphics type='{}'><listen type='none'/></graphics>",
]
kinds = pytest.mark.parametrize("kind", ["spice", "vnc"])


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolment.users, "account_of", lambda uuid: None)
    monkeypatch.setattr(enrolment.users, "account", lambda name: None)


def enrol(xml: str | bytes, **more: Any) -> bytes:
    return enrol_xml(xml if isinstance(xml, bytes) else xml.encode(), "vmw-", PATHS, **more)


def listens(xml: bytes) -> list[str]:
    return [listen.kind for display in read(xml).displays for listen in display.listens]


@kinds
@pytest.mark.parametrize("written", ON_LOOPBACK)
def test_a_console_on_loopback_has_no_port_and_gets_back_what_it_had(
    kind: str, written: str
) -> None:
    former = plain(written.format(kind))
    made = enrol(former, chosen_via="libvirt")
    (display,) = read(made).displays
    assert listens(made) == ["none"]
    assert (display.port, display.tls_port, display.websocket, display.address) == ("",) * 4
    assert canonical(unenrol(made)) == canonical(former.encode())


@kinds
@pytest.mark.parametrize("written", ELSEWHERE)
def test_any_other_one_is_left_alone(kind: str, written: str) -> None:
    former = plain(written.format(kind))
    made = enrol(former, chosen_via="libvirt")
    assert read(made).displays == read(former.encode()).displays
    assert canonical(unenrol(made)) == canonical(former.encode())


def test_a_display_that_is_no_console_is_left_alone() -> None:
    former = plain("<graphics type='egl-headless'/><graphics type='sdl'/>")
    assert read(enrol(former, via="libvirt")).displays == read(former.encode()).displays


def test_no_password_gets_into_the_metadata_that_anybody_may_read() -> None:
    made = enrol(plain(ON_LOOPBACK[3].format("vnc")), via="libvirt")
    metadata = etree.fromstring(made).find("metadata")
    assert metadata is not None
    assert "s3cret" not in etree.tostring(metadata).decode()
    assert "s3cret" in made.decode()


def test_what_the_admin_chose_for_a_domain_lasts_and_the_policy_is_asked_anew() -> None:
    former = plain(ON_LOOPBACK[0].format("spice"))
    chosen = enrol(former, chosen_via="libvirt")
    assert listens(enrol(chosen, via="port")) == ["none"]
    assert listens(enrol(chosen, chosen_via="port")) == []
    assert listens(enrol(enrol(chosen, chosen_via="port"), via="libvirt")) == []
    by_policy = enrol(former, via="libvirt")
    assert listens(by_policy) == ["none"]
    assert listens(enrol(by_policy, via="libvirt")) == ["none"]
    assert canonical(enrol(by_policy, via="port")) == canonical(enrol(former))


def test_an_address_that_was_written_since_stays() -> None:
    def edit(root: etree._Element) -> None:
        (listen,) = root.iterfind("devices/graphics/listen")
        listen.set("type", "address")
        listen.set("address", "192.0.2.1")

    edited = altered(enrol(plain(ON_LOOPBACK[1].format("vnc")), via="libvirt"), edit)
    (display,) = read(unenrol(edited)).displays
    assert display.addresses == ("192.0.2.1",)
    assert display.port == ""


def test_both_consoles_of_a_domain_are_told_apart() -> None:
    both = "<graphics type='vnc' port='5901'/><graphics type='spice' port='5902'/>"
    former = plain(both)
    made = enrol(former, via="libvirt")
    assert listens(made) == ["none", "none"]
    assert canonical(unenrol(made)) == canonical(former.encode())

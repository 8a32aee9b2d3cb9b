# SPDX-License-Identifier: GPL-2.0-or-later
"""SPICE as the wrapper makes it of what libvirt writes: TLS at its port, and a password."""

from __future__ import annotations

from typing import Any

import pytest
import wrapped
from test_wrapper_argv import TLS, real, refusals, ticket_of, tightened

OWN = [{"listen": "127.0.0.1", "port": 5900}]
# What libvirt 9.0 and 11.3 wrote of `<graphics type='spice'>`, and with a TLS port, which needs
# spice_tls = 1 in qemu.conf.
PLAIN = "port=5900,addr=127.0.0.1,disable-ticketing=on,seamless-migration=on"
BOTH = (
    "port=5900,tls-port=5901,addr=127.0.0.1,disable-ticketing=on,x509-dir=/etc/pki/libvirt-spice,"
    "tls-channel=default,plaintext-channel=main,seamless-migration=on"
)
KEPT = "seamless-migration=on"
NOWHERE = "port=0,disable-ticketing=on,seamless-migration=on"
SOCKETS = [
    f"{unix},addr=/run/s.sock,disable-ticketing=on,seamless-migration=on"
    for unix in ("unix", "unix=on")
]


def guarded(**more: Any) -> dict[str, Any]:
    return ticket_of(name="x", spice=OWN, tls_dir=TLS, password=True) | more


def words(value: str, **more: Any) -> str:
    """The -spice that QEMU gets."""
    option, made = tightened(guarded(**more), ["-spice", value])
    assert option == "-spice"
    return made


def judged(value: str, *others: str, **more: Any) -> list[str]:
    return refusals(guarded(**more), ["-name", "x", "-spice", value, *others])


def test_tls_is_at_the_port_that_libvirt_chose_and_no_other_port_is_left() -> None:
    rest = f"seamless-migration=on,tls-port=5900,x509-dir={TLS}"
    assert words(PLAIN) == f"addr=127.0.0.1,{rest}"
    assert words(BOTH) == f"addr=127.0.0.1,{rest.replace('5900', '5901')}"


@pytest.mark.parametrize("value", [PLAIN, BOTH])
def test_ports_that_only_libvirt_knows_of_are_not_opened(value: str) -> None:
    closed = [{"listen": "127.0.0.1", "port": port} for port in (5900, 5901)]
    assert judged(value, spice=[], closed=closed) == []
    assert words(value, spice=[], closed=closed) == f"disable-ticketing=on,{KEPT},port=0"
    assert judged(value, spice=[], closed=closed[:1]) == judged(value, spice=OWN)


def test_the_real_one_is_tightened_and_all_else_is_left_as_it_was() -> None:
    ticket, argv = real("spice")
    made = tightened({**ticket, "spice": OWN, "tls_dir": TLS, "password": True}, argv)
    at = argv.index("-spice") + 1
    assert made[:at] + made[at + 1 :] == argv[:at] + argv[at + 1 :]
    assert ",tls-port=5900," in made[at]
    assert "disable-ticketing" not in made[at]


@pytest.mark.parametrize(
    "smuggled",
    [
        "disable-ticketing",
        "disable-ticketing=yes",
        "plaintext-channel=default",
        "plaintext-channel=inputs,plaintext-channel=main",
        "password=x",
        "sasl=on",
        "x509-key-file=/etc/key",
        "tls-ciphers=NULL",
        "tls-channel=default",
        "port=5900,port=5900",
    ],
)
def test_nothing_beside_takes_tls_or_the_password_away(smuggled: str) -> None:
    expected = f"addr=127.0.0.1,seamless-migration=on,tls-port=5900,x509-dir={TLS}"
    assert words(f"{PLAIN},{smuggled}") == expected


def test_libvirts_descriptors_are_not_shut_out() -> None:
    """With tls-channel=default QEMU would refuse them: they are no TLS."""
    assert "tls-channel" not in words(BOTH)


@pytest.mark.parametrize("value", [NOWHERE, "disable-ticketing=on"])
def test_where_libvirt_alone_opens_it_nobody_is_asked_again(value: str) -> None:
    assert words(value, spice=[]) == value
    assert judged(value, spice=[]) == []


@pytest.mark.parametrize("value", [PLAIN, BOTH, *SOCKETS, NOWHERE])
def test_one_that_is_off_has_no_port_and_lets_nobody_in(value: str) -> None:
    assert words(value, display=False) == "seamless-migration=on,port=0"


@pytest.mark.parametrize("value", SOCKETS)
def test_a_socket_asks_for_the_password_where_the_policy_wants_no_tls(value: str) -> None:
    own = {"spice": [{"socket": "/run/s.sock"}], "tls_dir": None}
    assert judged(value, **own) == []
    unix = value.partition(",")[0]
    assert words(value, **own) == f"{unix},addr=/run/s.sock,seamless-migration=on"


def test_what_the_policy_turns_off_is_left_to_libvirt() -> None:
    assert words(BOTH, tls_dir=None, password=False) == BOTH
    assert words(PLAIN, password=False).startswith("addr=127.0.0.1,disable-ticketing=on,")


@pytest.mark.parametrize(
    "value",
    [
        PLAIN.replace("5900", "5901"),
        PLAIN.replace("127.0.0.1", "0.0.0.0"),  # noqa: S104 - it is refused
        PLAIN.replace("addr=127.0.0.1,", ""),
        f"{PLAIN},tls-port=5999",
        f"{PLAIN},addr=::",
        f"{PLAIN},port=x",
        *SOCKETS,
        SOCKETS[1].replace("unix=on", "unix=yes"),
        SOCKETS[1].replace("unix=on", "unix=true"),
    ],
)
def test_a_place_that_was_not_planned_is_refused(value: str) -> None:
    found = judged(value)
    assert found
    assert all("is not a planned console" in line for line in found)


def test_spice_needs_a_plan() -> None:
    assert judged(PLAIN, spice=False) == ["SPICE is not among its planned consoles"]
    assert judged(NOWHERE, spice=False) == ["SPICE is not among its planned consoles"]
    assert judged(PLAIN, spice=False, passthrough=True) == []


def test_a_second_one_which_qemu_would_add_to_the_first_is_refused() -> None:
    assert "it has more than one -spice" in judged(PLAIN, "-spice", PLAIN)


@pytest.mark.parametrize("value", ["port=5900,addr=127.0.0.1", f"{PLAIN},disable-ticketing=off"])
def test_a_static_password_is_refused_where_the_policy_forbids_it(value: str) -> None:
    """libvirt disables tickets wherever it has no password to set."""
    static = value.replace("disable-ticketing=on,", "")
    assert judged(static) == []
    assert judged(static, static_passwords=False) == ["its SPICE display has a static password"]
    assert judged(PLAIN, static_passwords=False) == []


def test_a_ticket_of_a_former_version_only_allows_or_forbids() -> None:
    ticket, argv = real("spice")
    assert ticket["spice"] is True
    former = {**ticket, "tls_dir": TLS, "password": True}
    assert refusals(former, argv) == []
    assert tightened(former, argv) == argv
    assert wrapped.ticket.fits(ticket["spice"], wrapped.ticket.FORM["spice"])

# SPDX-License-Identifier: GPL-2.0-or-later
"""A SPICE console: only the planned one, with TLS at its port and with a password.

libvirt allocates a port for TLS only where qemu.conf says spice_tls = 1. Where it allocates another
one, TLS is at that: QEMU listens for no viewer without TLS.
"""

from __future__ import annotations

from argv import split_opts
from refusal import EDIT, XML, Refusal
from texts import is_number, words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from argv import Option
    from ticket import Ticket

NO_PORT = "0"
# As QEMU reads a switch; libvirt 9.0 writes `unix`, 11.3 `unix=on`.
ON = ("", "on", "true", "y", "yes")
PORTS = ("port", "tls-port")
LISTENING = words_of("addr ipv4 ipv6 port tls-port unix")
# One channel without TLS could not be opened at a port that has only TLS. With tls-channel=default,
# QEMU would refuse libvirt's descriptors, which leave this host by no wire.
SECURITY = words_of("""
    plaintext-channel sasl tls-channel tls-ciphers x509-cacert-file x509-cert-file x509-dh-key-file
    x509-dir x509-key-file x509-key-password""")
TICKETING = words_of("disable-ticketing password password-secret")
STANDING = (
    EDIT + ": remove passwd= from <graphics>, and spice_password from"
    ' /etc/libvirt/qemu.conf; or static_passwords = "allow" in the policy'
)


def check_spice(ticket: Ticket, options: list[Option]) -> Iterator[Refusal]:
    """Its SPICE console is the planned one. A ticket of a former version only allows or forbids."""
    found = [option for option in options if option.name == "spice"]
    planned = ticket["spice"]
    if planned is True:
        return
    if found and planned is False and not ticket["passthrough"]:
        yield Refusal("SPICE is not among its planned consoles", XML)
        return
    if len(found) > 1 and not ticket["passthrough"]:
        yield Refusal("it has more than one -spice", XML)  # QEMU would merge them
    for option in found:
        # libvirt disables it wherever it knows no password.
        if not is_ticketing_disabled(option) and not ticket["static_passwords"]:
            yield Refusal("its SPICE display has a static password", STANDING)
        for place in endpoints(option):
            if planned is not False and place not in (*planned, *ticket["closed"]):
                yield Refusal(f"SPICE at {said(place)} is not a planned console", XML)


def is_ticketing_disabled(option: Option) -> bool:
    return any(text in ON for text in option.under("disable-ticketing"))


def is_at_a_socket(option: Option) -> bool:
    return any(text in ON for text in option.under("unix"))


def endpoints(option: Option) -> Iterator[Mapping[str, object]]:
    """Where this -spice listens, in the ticket's terms."""
    addresses = option.under("addr") or [""]
    if is_at_a_socket(option):
        yield from ({"socket": address} for address in addresses)
        return
    for key in PORTS:
        for port in option.under(key):
            if port != NO_PORT:
                number = int(port) if is_number(port) else port
                yield from ({"listen": address, "port": number} for address in addresses)


def said(place: Mapping[str, object]) -> str:
    return repr(place.get("socket") or f"{place['listen']} port {place['port']}")


def tighten_spice(ticket: Ticket, option: Option) -> list[str]:
    """The words for QEMU: this -spice as the ticket asks."""
    if ticket["spice"] is True:
        return option.words
    dropped: frozenset[str] = frozenset()
    ours: dict[str, str] = {}
    is_closed = any(endpoints(option)) and all(e in ticket["closed"] for e in endpoints(option))
    if not ticket["display"] or is_closed:
        # Its channels and its sound card need SPICE itself.
        dropped |= LISTENING | SECURITY
        ours["port"] = NO_PORT
    elif ticket["tls_dir"] and (port := viewers_port(option)):
        dropped |= SECURITY | {*PORTS}
        ours |= {"tls-port": port, "x509-dir": ticket["tls_dir"]}
    # Only libvirt, which has asked already, opens a display without a port.
    is_open = any(endpoints(option)) and not is_closed
    if not ticket["display"] or (ticket["password"] and is_open):
        dropped |= TICKETING
    parts = list(split_opts(option.value))
    if not ours and dropped.isdisjoint(key for key, _, _ in parts):
        return option.words
    kept = [raw for key, _, raw in parts if key not in dropped]
    return ["-spice", ",".join(kept + [f"{key}={value}" for key, value in ours.items()])]


def viewers_port(option: Option) -> str:
    """The TCP port for viewers, which libvirt chose for TLS if it may; empty for none."""
    ports = [port for key in ("tls-port", "port") for port in option.under(key)[-1:]]
    return next((port for port in ports if port != NO_PORT), "")

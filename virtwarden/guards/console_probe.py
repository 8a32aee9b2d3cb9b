# SPDX-License-Identifier: GPL-2.0-or-later
"""What the running consoles of a domain offer a viewer, against what the policy asks for."""

from __future__ import annotations

from virtwarden.domain.model import Display
from virtwarden.errors import HostError
from virtwarden.guards.base import Case
from virtwarden.guards.displays import addresses_of, consoles_of
from virtwarden.system.vnc import VENCRYPT, X509_SASL, X509_SUBTYPES

_NO_PORT = ("", "-1", "0")


def breaches(case: Case) -> list[str]:
    """Connect to every console as a viewer would; a sentence for each promise it breaks."""
    open_ones = [
        breach
        for console in consoles_of(case)
        for address in addresses_of(case, console)
        for breach in _verify(case, console, address)
    ]
    return open_ones + [
        f"{console.kind.upper()} at {address} port {port} answers, but libvirt alone shows it"
        for console in case.closed
        for address in addresses_of(case, console)
        for port in console.ports
        if port and _answers(case, console, address, port)
    ]


def _answers(case: Case, console: Display, address: str, port: int) -> bool:
    try:
        if console.kind == "spice":
            case.facts.spice_offers(address, port)
        else:
            case.facts.vnc_offers(address, port)
    except HostError:
        return False
    return True


def _verify(case: Case, console: Display, address: str) -> list[str]:
    if console.kind == "spice":
        return [b for end in _spice_ends(console, address) for b in _verify_spice(case, *end)]
    return [*_verify_offer(case, console, address), *_verify_websocket(case, console, address)]


def _spice_ends(console: Display, address: str) -> list[tuple[str, str, int]]:
    """Where SPICE may answer, as `_endpoint` says it: libvirt may have chosen two ports."""
    if address == "unix":
        return [(f"SPICE at {_socket(console)}", _socket(console), 0)]
    return [(f"SPICE at {address} port {port}", address, port) for port in console.ports if port]


def _verify_spice(case: Case, where: str, host: str, port: int) -> list[str]:
    """See what a viewer without a password is answered."""
    rules = case.rules
    needs_none = rules.display == "off" or (rules.tls == "required" and not _is_main(case, port))
    try:
        offer = case.facts.spice_offers(host, port)
    except HostError as error:
        return [] if needs_none else [error.what]
    if rules.display == "off":
        return [f'{where} answers, but display = "off"']
    if rules.tls == "required" and offer.plain:
        return [f"{where} answers viewers without TLS"]
    if rules.password == "required" and not offer.asks:
        return [f"{where} accepts viewers without a password"]
    return []


def _is_main(case: Case, port: int) -> bool:
    """Whether viewers with TLS are to be answered at this port."""
    return any(console.viewers_port(tls=True) == port for console in consoles_of(case, "spice"))


def _verify_offer(case: Case, console: Display, address: str) -> list[str]:
    """See what VNC offers before any password."""
    endpoint = _endpoint(console, address)
    if endpoint is None:
        return []
    where, host, port = endpoint
    try:
        offer = case.facts.vnc_offers(host, port)
    except HostError as error:
        return [] if case.rules.display == "off" else [error.what]
    if case.rules.display == "off":
        return [f'{where} answers, but display = "off"']
    if case.rules.tls == "required" and offer.types != (VENCRYPT,):
        return [f"{where} offers security types {list(offer.types)}, not VeNCrypt alone"]
    if case.rules.tls == "required" and not set(offer.subtypes) <= X509_SUBTYPES:
        return [f"{where} offers VeNCrypt subtypes {list(offer.subtypes)} without x509"]
    if case.rules.sasl != "off" and set(offer.subtypes) != {X509_SASL}:
        return [f"{where} offers VeNCrypt subtypes {list(offer.subtypes)}, not SASL alone"]
    if case.rules.password == "required" and not _asks(offer.types, offer.subtypes):
        return [f"{where} accepts viewers without a password"]
    if case.rules.client_certificates == "required" and case.facts.vnc_takes_anyone(host, port):
        return [f"{where} asks viewers for no certificate"]
    return []


def _endpoint(console: Display, address: str) -> tuple[str, str, int] | None:
    """In words, host and port; a Unix socket is a host with a slash. None where there is none."""
    if address == "unix":
        return f"VNC at {_socket(console)}", _socket(console), 0
    if console.port in _NO_PORT:
        return None
    return f"VNC at {address} port {console.port}", address, int(console.port)


def _socket(console: Display) -> str:
    listening = [listen.socket for listen in console.listens if listen.kind == "socket"]
    return console.socket or "".join(listening[:1])


def _verify_websocket(case: Case, console: Display, address: str) -> list[str]:
    if case.rules.tls != "required" or case.rules.display == "off":
        return []
    if console.websocket in _NO_PORT or address == "unix":
        return []
    if case.facts.takes_plain_websocket(address, int(console.websocket)):
        return [f"VNC at {address} port {console.websocket} speaks WebSocket without TLS"]
    return []


def _asks(types: tuple[int, ...], subtypes: tuple[int, ...]) -> bool:
    """Whether every way in asks for a secret; type 1 and subtypes 257 and 260 do not."""
    return 1 not in types and not {257, 260} & set(subtypes)

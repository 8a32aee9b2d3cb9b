# SPDX-License-Identifier: GPL-2.0-or-later
"""The consoles of a guest: only the planned ones, each protected as the ticket says."""

from __future__ import annotations

from itertools import chain

from argv import split_opts
from refusal import EDIT, XML, Refusal
from spice import check_spice, tighten_spice
from texts import dump_json, is_number, words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from argv import Option
    from ticket import Ticket

VNC_TLS = "vmw-vnc-tls"
VNC_AUTHZ = "vmw-vnc-authz"
VNC_SASL = "vmw-vnc-sasl"
VNC_KEYS = words_of("audiodev password power-control sasl share tls-creds vnc websocket")
STANDING = (
    EDIT + ": remove passwd= from <graphics>, and vnc_password from"
    ' /etc/libvirt/qemu.conf; or static_passwords = "allow" in the policy'
)

# QEMU checks the issuer of a viewer's certificate and never its purpose. Without this rule, an
# escaped guest could show its own console's certificate, whose name is its UUID.
OPERATORS_ALONE = {
    "qom-type": "authz-list",
    "id": VNC_AUTHZ,
    "policy": "allow",
    "rules": [
        {"match": f"*CN={'-'.join('?' * n for n in (8, 4, 4, 4, 12))}*", "policy": "deny"}
        | {"format": "glob"}
    ],
}


def endpoint(address: str) -> str:
    """Where a VNC address of QEMU listens, in the ticket's terms: displays count from 5900."""
    host, colon, display = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or "]" in host or not is_number(display) or len(display) > len("65535"):
        return address
    return f"{host} port {int(display) + 5900}"


def check_consoles(ticket: Ticket, options: list[Option]) -> Iterator[Refusal]:
    """Every console is a planned one.

    One -vnc can name several, and its other keys can add more.
    """
    planned = {"none"}
    for console in (*ticket["vnc"], *ticket["closed"]):
        form = "unix:{socket}" if "socket" in console else "{listen} port {port}"
        planned.add(form.format(**console))
    yield from check_spice(ticket, options)
    for option in options:
        if option.name != "vnc":
            continue
        if "on" in option.under("password") and not ticket["static_passwords"]:
            yield Refusal("its VNC display has a static password", STANDING)
        for address in option.under("vnc") or [""]:
            if endpoint(address) not in planned:
                yield Refusal(f"VNC at {endpoint(address)!r} is not a planned console", XML)
        for key, value in option.texts:
            # A bare websocket port shares address, TLS and password; 'host:port' would not.
            if key not in VNC_KEYS or (key == "websocket" and not value.isdecimal()):
                yield Refusal(f"libvirt does not write {key}={value} in -vnc by itself", XML)


def tighten_argv(ticket: Ticket, options: list[Option]) -> list[str]:
    """The words for QEMU: every console as the ticket asks, or none where it says so."""
    consoles = [option for option in options if option.name == "vnc"]
    replaced = consoles if ticket["tls_dir"] or not ticket["display"] else []
    former = {*chain.from_iterable(option.under("tls-creds") for option in replaced)}
    words = []
    for option in options:
        if option.name == "spice":
            words += tighten_spice(ticket, option)
        elif option in consoles:
            words += tighten_vnc(ticket, option) if ticket["display"] else []
        # These are libvirt's own credentials, now unused: QEMU would still load them, and exit at a
        # key that the VM's user cannot read.
        elif option.name != "object" or former.isdisjoint(option.under("id")):
            words += option.words
    if consoles and not ticket["display"]:
        # With neither option QEMU would open a display of its own choice.
        none = ["-display", "none"]
        return words if any(option.name == "display" for option in options) else words + none
    if all(listens_nowhere(each) or is_closed(ticket, each) for each in consoles):
        return words
    return words + [word for each in objects_of_vnc(ticket) for word in ("-object", each)]


def tighten_vnc(ticket: Ticket, option: Option) -> list[str]:
    """The words for QEMU: this -vnc as the ticket asks."""
    parts = list(split_opts(option.value, "vnc"))
    unwanted, ours = wanted_of_vnc(ticket)
    if listens_nowhere(option):
        unwanted, ours = unwanted & {"tls-creds"}, {}
    elif is_closed(ticket, option):
        unwanted, ours = (unwanted & {"tls-creds"}) | {"vnc", "websocket"}, {"vnc": "none"}
    if not ours and unwanted.isdisjoint(key for key, _, _ in parts):
        return option.words
    kept = [raw for key, _, raw in parts if key not in unwanted]
    return ["-vnc", ",".join(kept + [f"{key}={value}" for key, value in ours.items()])]


def wanted_of_vnc(ticket: Ticket) -> tuple[set[str], dict[str, str]]:
    """The keys to take out of a -vnc, and those to put in."""
    tls = ticket["tls_dir"]
    sasl = ticket["sasl"] if tls else None
    ours = {"tls-creds": VNC_TLS} if tls else {}
    ours |= {"password": "on"} if ticket["password"] and not sasl else {}
    ours |= {"sasl": "on"} if sasl else {}
    ours |= {"sasl-authz": VNC_SASL} if sasl and sasl["names"] is not None else {}
    # With SASL on, QEMU would ask for the VNC password instead.
    unwanted = {*ours} | ({"password"} if sasl else set())
    ours |= {"tls-authz": VNC_AUTHZ} if tls and ticket["client_certificates"] else {}
    return unwanted, ours


def listens_nowhere(option: Option) -> bool:
    """Whether only libvirt, which has asked already who it is, opens this -vnc to a viewer."""
    return {*option.under("vnc")} == {"none"} and not option.under("websocket")


def is_closed(ticket: Ticket, option: Option) -> bool:
    """Whether only libvirt is to open this -vnc, which it wrote with a port."""
    closed = [f"{place['listen']} port {place['port']}" for place in ticket["closed"]]
    addresses = option.under("vnc")
    return bool(addresses) and all(endpoint(address) in closed for address in addresses)


def objects_of_vnc(ticket: Ticket) -> Iterator[str]:
    """What the words of a -vnc refer to."""
    if not ticket["tls_dir"]:
        return
    yield dump_json(tls_credentials(ticket))
    if ticket["client_certificates"]:
        yield dump_json(OPERATORS_ALONE)
    if ticket["sasl"] and ticket["sasl"]["names"] is not None:
        yield dump_json(principals_alone(ticket["sasl"]["names"]))


def principals_alone(names: list[str]) -> dict[str, object]:
    """The object that makes QEMU accept only these of all the names that Kerberos knows."""
    rules = [{"match": name, "policy": "allow", "format": "exact"} for name in names]
    return {"qom-type": "authz-list", "id": VNC_SASL, "policy": "deny", "rules": rules}


def tls_credentials(ticket: Ticket) -> dict[str, object]:
    """The object that makes QEMU use TLS, and says whether viewers need a certificate."""
    return {
        "qom-type": "tls-creds-x509",
        "id": VNC_TLS,
        "dir": ticket["tls_dir"],
        "endpoint": "server",
        "verify-peer": ticket["client_certificates"],
    }

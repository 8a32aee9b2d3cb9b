# SPDX-License-Identifier: GPL-2.0-or-later
"""The consoles of a guest: only the planned ones, each protected as the ticket says."""

from __future__ import annotations

from itertools import chain

from argv import split_opts
from refusal import XML, Refusal
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
    "'virsh edit {name}', remove passwd= from <graphics>, and vnc_password from"
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
    for console in ticket["vnc"]:
        form = "unix:{socket}" if "socket" in console else "{listen} port {port}"
        planned.add(form.format(**console))
    for option in options:
        if option.name == "spice" and not (ticket["spice"] or ticket["passthrough"]):
            yield Refusal("SPICE is not among its planned consoles", XML)
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
    """The words for QEMU: every -vnc as the ticket asks, or none where it says so."""
    ours = {"tls-creds": VNC_TLS} if ticket["tls_dir"] else {}
    sasl = ticket["sasl"] if ticket["tls_dir"] else None
    ours |= {"password": "on"} if ticket["password"] and not sasl else {}
    ours |= {"sasl": "on"} if sasl else {}
    names = sasl and sasl["names"]
    ours |= {"sasl-authz": VNC_SASL} if names is not None else {}
    # With SASL on, QEMU would ask for the VNC password instead.
    unwanted = ours.keys() | ({"password"} if sasl else set())
    asks_whose = ticket["tls_dir"] and ticket["client_certificates"]
    ours |= {"tls-authz": VNC_AUTHZ} if asks_whose else {}
    consoles = [option for option in options if option.name == "vnc"]
    replaced = consoles if ticket["tls_dir"] or not ticket["display"] else []
    former = {*chain.from_iterable(option.under("tls-creds") for option in replaced)}
    words = []
    for option in options:
        if option in consoles and not ticket["display"]:
            continue
        if option in consoles and ours:
            kept = [raw for key, _, raw in split_opts(option.value, "vnc") if key not in unwanted]
            words += ["-vnc", ",".join(kept + [f"{key}={value}" for key, value in ours.items()])]
        # These are libvirt's own credentials, now unused: QEMU would still load them, and exit at a
        # key that the VM's user cannot read.
        elif option.name != "object" or former.isdisjoint(option.under("id")):
            words += option.words
    if consoles and not ticket["display"]:
        # With neither option QEMU would open a display of its own choice.
        none = ["-display", "none"]
        return words if any(option.name == "display" for option in options) else words + none
    if consoles and ticket["tls_dir"]:
        words += ["-object", dump_json(tls_credentials(ticket))]
    if consoles and asks_whose:
        words += ["-object", dump_json(OPERATORS_ALONE)]
    if consoles and names is not None:
        words += ["-object", dump_json(principals_alone(names))]
    return words


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

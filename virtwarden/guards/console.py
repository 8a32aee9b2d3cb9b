"""Guard `console`: only viewers with the password see a VM's console, over TLS."""

from __future__ import annotations

import stat

from virtwarden.changes import (
    Change,
    GrantAccess,
    IssueCertificate,
    MakeDirectory,
    RestrictPorts,
    WriteFile,
)
from virtwarden.domain.model import Display
from virtwarden.errors import HostError, Refusal
from virtwarden.guards.base import Case, Op
from virtwarden.system import sasl
from virtwarden.system.process import Process
from virtwarden.system.vnc import VENCRYPT, X509_SASL, X509_SUBTYPES
from virtwarden.words import shown

NAME = "console"

# egl-headless renders for another display and is itself reached by nobody.
_UNREACHABLE = ("egl-headless",)
_READ = 4
_NO_PORT = ("", "-1", "0")
# What limits who reaches a TCP port, beside what filters the frames of a tap.
_PORT_BACKENDS = {
    "auto": ("nftables", "iptables"),
    "nftables": ("nftables",),
    "ebtables": ("iptables",),
}


def review(case: Case) -> list[Refusal]:
    """See Guard."""
    refusals = [
        refusal for display in case.domain.displays for refusal in _review_display(case, display)
    ]
    if _certificates_without_tls(case):
        refusals.append(
            case.refusal(
                "client_certificates needs tls",
                where=case.rules.where("console.client_certificates"),
                fix='set tls = "required" or client_certificates = "off" under [console]',
            )
        )
    refusals += _review_sasl(case)
    if case.op is Op.PREPARE and _is_restricted(case) and not _port_backend(case):
        refusals.append(_no_port_backend(case))
    return refusals


def _review_display(case: Case, display: Display) -> list[Refusal]:
    edit = f"virsh edit {shown(case.domain.name)}"
    if display.kind in _UNREACHABLE:
        return []
    if case.rules.display == "off":
        return [] if display.kind == "vnc" else [_not_switched_off(case, display)]
    if display.kind == "spice" and "spice" in case.rules.exceptions:
        return []
    if display.kind != "vnc":
        return [
            case.refusal(
                f"a {display.kind} display; virt-warden cannot enforce its encryption and password",
                fix=f"make it type='vnc': {edit}",
            )
        ]
    return [
        case.refusal(
            f"VNC would listen on {address or 'an address that is not known'}",
            where=case.rules.where("console.listen"),
            fix=f"one of {', '.join(case.rules.listen)}: {edit}; or add it to listen",
        )
        for address in _addresses(case, display)
        if address not in case.rules.listen
    ]


def _not_switched_off(case: Case, display: Display) -> Refusal:
    return case.refusal(
        f'a {display.kind} display, but the policy says display = "off"',
        where=case.rules.where("console.display"),
        fix=f"remove it: virsh edit {shown(case.domain.name)}",
    )


def _certificates_without_tls(case: Case) -> bool:
    rules = case.rules
    return rules.client_certificates == "required" and rules.tls != "required" and _is_on(case)


def _review_sasl(case: Case) -> list[Refusal]:
    if case.op is not Op.PREPARE or case.rules.sasl == "off" or not _is_on(case):
        return []
    rules = case.rules
    where = rules.where("console.sasl")
    if rules.tls != "required":
        fix = 'set tls = "required" or sasl = "off" under [console]'
        return [case.refusal("sasl needs tls", where=where, fix=fix)]
    packages = case.facts.lacking_for_sasl(rules.sasl)
    if packages:
        fix = f'apt install {packages}, or set sasl = "off" under [console]'
        return [case.refusal("sasl does not work on this host", where=where, fix=fix)]
    return _review_keytab(case) if rules.sasl == "kerberos" else []


def _review_keytab(case: Case) -> list[Refusal]:
    rules = case.rules
    where = rules.where("console.keytab")
    found = case.facts.look(rules.keytab)
    if found.leaf is None or not stat.S_ISREG(found.leaf.mode) or found.symlink:
        fix = f"kadmin: ktadd -k {rules.keytab} vnc/HOST; or name the file that is there"
        return [case.refusal(f"{rules.keytab} is not a keytab", where=where, fix=fix)]
    if found.leaf.uid != 0 or found.leaf.mode & stat.S_IRWXO:
        fix = f"chown root:root {rules.keytab}; chmod 600 {rules.keytab}"
        return [case.refusal(f"{rules.keytab} can be read by others", where=where, fix=fix)]
    if rules.client_certificates != "required":
        return [
            case.refusal(
                "an escaped guest can read the keytab and log in as anybody at each console that"
                " asks only for Kerberos",
                where=rules.where("console.client_certificates"),
                fix='client_certificates = "required" beside it, or sasl = "tickets"',
            )
        ]
    if not rules.principals:
        fix = 'name them, "alice" or, of another realm, "alice@EXAMPLE.ORG", not a group'
        where = rules.where("console.operators")
        return [
            case.refusal(
                "operators names nobody who can log in with Kerberos", where=where, fix=fix
            )
        ]
    return []


def _is_on(case: Case) -> bool:
    """Whether the domain has a VNC display, and keeps it."""
    return bool(_consoles(case)) and case.rules.display == "on"


def _addresses(case: Case, display: Display) -> list[str]:
    """Where a VNC display listens, as far as it is known.

    Between `prepare` and `start` libvirt fills in the address of one of its networks, and that of
    qemu.conf where the XML names none.
    """
    return [address for address in display.addresses if address or case.op is not Op.PREPARE]


def _consoles(case: Case) -> list[Display]:
    return [display for display in case.domain.displays if display.kind == "vnc"]


def plan(case: Case) -> list[Change]:
    """See Guard."""
    if case.op is not Op.START:
        return []
    return [*_certificates(case), *_sasl(case), *_restrictions(case)]


def ahead(case: Case) -> list[Change]:
    """What `plan` will have at `start`, as far as that is known at `prepare`."""
    return [*_certificates(case)]


def is_whole(change: Change) -> bool:
    """Whether a change was done ahead, to its end."""
    return isinstance(change, IssueCertificate) and change.is_whole


def _sasl(case: Case) -> list[Change]:
    """What QEMU asks viewers with: a database for tickets, in which none is yet, or a keytab."""
    rules = case.rules
    if not rules.asks_by_sasl or not _is_on(case):
        return []
    directory = f"{case.cell}/sasl"
    content = sasl.configuration(directory, rules.sasl, rules.keytab)
    changes: list[Change] = [
        MakeDirectory(directory, case.user),
        WriteFile(f"{directory}/{sasl.CONFIGURATION}", content, case.user),
    ]
    if rules.sasl == "tickets":
        return [*changes, WriteFile(f"{directory}/{sasl.DATABASE}", "", case.user)]
    leaf = case.facts.look(rules.keytab).leaf
    if leaf is None:
        return changes
    device, number = leaf.identity
    return [*changes, GrantAccess(rules.keytab, device, number, case.user, _READ)]


def _certificates(case: Case) -> list[IssueCertificate]:
    consoles = _consoles(case)
    if not _is_on(case) or case.rules.tls != "required":
        return []
    addresses = [address for console in consoles for address in _addresses(case, console)]
    names = (*case.facts.host_names(), *(a for a in addresses if a and a != "unix"))
    return [
        IssueCertificate(
            directory=f"{case.cell}/tls",
            user=case.user,
            common_name=case.domain.uuid,
            names=tuple(dict.fromkeys(names)),
        )
    ]


def _is_restricted(case: Case) -> bool:
    """Whether somebody is to be kept from a port of the domain's displays."""
    wanted = case.rules.display == "on" and bool(case.rules.admin_workstations)
    return wanted and any(map(_has_port, case.domain.displays))


def _has_port(display: Display) -> bool:
    if display.kind not in ("vnc", "spice"):
        return False
    kinds = {listen.kind for listen in display.listens}
    return bool(kinds & {"address", "network"}) if kinds else not display.socket


def _restrictions(case: Case) -> list[RestrictPorts]:
    """Raises Refusal where what worked at `prepare` works no more."""
    if not _is_restricted(case):
        return []
    ports = [
        int(port)
        for display in case.domain.displays
        for port in (display.port, display.tls_port, display.websocket)
        if port.isdecimal()
    ]
    if not ports:
        return []
    backend = _port_backend(case)
    if not backend:
        raise _no_port_backend(case)
    return [
        RestrictPorts(
            domain=case.domain.uuid,
            backend=backend,
            ports=tuple(dict.fromkeys(ports)),
            sources=case.rules.admin_workstations,
        )
    ]


def _port_backend(case: Case) -> str:
    """The firewall that the policy leads to, or the first that works; empty where none does."""
    wanted = _PORT_BACKENDS[case.rules.backend]
    return next((name for name in wanted if case.facts.port_backend_works(name)), "")


def _no_port_backend(case: Case) -> Refusal:
    wanted = " or ".join(_PORT_BACKENDS[case.rules.backend])
    return case.refusal(
        f"{wanted} does not work on this host, so admin_workstations cannot be enforced",
        where=case.rules.where("console.admin_workstations"),
        fix="apt install nftables, then see what fails: nft list ruleset; or"
        " remove admin_workstations",
    )


def verify(case: Case, process: Process) -> list[str]:
    """See Guard. Knocks at every door, as a viewer would."""
    offers = [
        breach
        for console in _tightened(case)
        for address in _addresses(case, console)
        for breach in (
            *_verify_offer(case, console, address),
            *_verify_websocket(case, console, address),
        )
    ]
    return offers + _verify_restrictions(case)


def _tightened(case: Case) -> list[Display]:
    """The consoles that the wrapper saw to."""
    return [] if "emulator" in case.rules.exceptions else _consoles(case)


def _verify_restrictions(case: Case) -> list[str]:
    try:
        restrictions = _restrictions(case)
    except Refusal as refusal:
        return [refusal.what]
    return [sentence for each in restrictions if (sentence := _not_kept(case, each))]


def _not_kept(case: Case, restriction: RestrictPorts) -> str:
    """The policy may name another firewall by now than the one that keeps the promise."""
    missing = case.facts.missing_port_rules(restriction.backend, restriction.promise)
    others = [name for name in _PORT_BACKENDS["auto"] if name != restriction.backend]
    for other in others if missing else ():
        works = case.facts.port_backend_works(other)
        if works and not case.facts.missing_port_rules(other, restriction.promise):
            return ""
    return missing


def _verify_offer(case: Case, console: Display, address: str) -> list[str]:
    """See what is offered before any password."""
    door = _door(console, address)
    if door is None:
        return []
    where, host, port = door
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


def _door(console: Display, address: str) -> tuple[str, str, int] | None:
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

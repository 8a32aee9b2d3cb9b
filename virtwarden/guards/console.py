# SPDX-License-Identifier: GPL-2.0-or-later
"""Guard `console`: only viewers with the password see a VM's console, over TLS."""

from __future__ import annotations

from collections.abc import Iterator

from virtwarden.changes import Change, IssueCertificate, RestrictPorts
from virtwarden.domain.model import Display
from virtwarden.errors import Refusal
from virtwarden.guards import console_probe, console_sasl, console_spice
from virtwarden.guards.base import Case, Op
from virtwarden.guards.displays import (
    GUARDED,
    Default,
    addresses_of,
    consoles_of,
    default_of,
    has_certificate,
    has_consoles,
    has_port,
    is_name,
    looked_up,
    without,
)
from virtwarden.pki import consoles
from virtwarden.system.process import Process
from virtwarden.words import toml

NAME = "console"

# egl-headless renders for another display and is itself reached by nobody.
_UNREACHABLE = ("egl-headless",)
# What limits who reaches a TCP port, beside what filters the frames of a tap.
_PORT_BACKENDS = {
    "auto": ("nftables", "iptables"),
    "nftables": ("nftables",),
    "ebtables": ("iptables",),
}


def review(case: Case) -> list[Refusal]:
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
    refusals += console_sasl.review(case)
    if case.op is Op.PREPARE and _is_restricted(case) and not _port_backend(case):
        refusals.append(_no_port_backend(case))
    return refusals


def _review_display(case: Case, display: Display) -> list[Refusal]:
    if display.kind in _UNREACHABLE:
        return []
    if display.kind not in GUARDED:
        is_off = case.rules.display == "off"
        return [(_not_switched_off if is_off else _not_guarded)(case, display)]
    if case.rules.display == "off":
        return []
    refusals = _review_addresses(case, display)
    return refusals + (console_spice.review(case, display) if display.kind == "spice" else [])


def _review_addresses(case: Case, display: Display) -> list[Refusal]:
    addresses = addresses_of(case, display)
    default = default_of(case, display)
    if default is None or default.address in case.rules.listen:
        return [refusal for address in addresses for refusal in _review(case, display, address)]
    others = [address for address in addresses if address != default.address]
    refused = [refusal for address in others for refusal in _review(case, display, address)]
    return [_not_listed_by_libvirt(case, display, default), *refused]


def _review(case: Case, display: Display, address: str) -> list[Refusal]:
    """Review one address, or a name that stands for one or more."""
    found = looked_up(case, address)
    forbidden = [each for each in found if each not in case.rules.listen]
    if found and not forbidden:
        return []
    kind = display.kind.upper()
    what = f"{kind} would listen on {address or 'an address that is not known'}"
    way_out = f"or add {' and '.join(forbidden) if is_name(address) else 'it'} to listen"
    if is_name(address) and found:
        what += f", which is {' and '.join(found)}"
    elif is_name(address):
        what += ", a name that is not in /etc/hosts, and may mean something else each time"
        way_out = "or put it into /etc/hosts"
    listed = case.rules.listen
    way = (
        f"one of {', '.join(listed)}: {case.edit}" if listed else _without_a_console(case, display)
    )
    where = case.rules.where("console.listen")
    return [case.refusal(what, where=where, fix=f"{way}; {way_out}")]


def _not_listed_by_libvirt(case: Case, display: Display, default: Default) -> Refusal:
    """What qemu.conf says for all VMs, and how to say it there, here, or in the policy."""
    said = f", as {default.setting} in {default.where} says" if default.setting else ""
    ways = [*_other_listens(case, display, default)] or [_without_a_console(case, display)]
    return case.refusal(
        f"{display.kind.upper()} would listen on {default.address}{said}",
        where=case.rules.where("console.listen"),
        fix="; or ".join([*ways, f"add {toml(default.address)} to listen"]),
    )


def _without_a_console(case: Case, display: Display) -> str:
    return f"{case.edit}: {without(case, display)}, since the policy lists no address"


def _other_listens(case: Case, display: Display, default: Default) -> Iterator[str]:
    """How to have it listen where the policy allows it."""
    addresses = [address for address in case.rules.listen if address != "unix"]
    if not case.rules.listen:
        return
    if default.setting:
        wanted = _in_qemu_conf(display.kind, default, addresses)
        yield f"write {wanted} there: systemctl restart libvirtd"
    listen = f"type='address' address='{addresses[0]}'" if addresses else "type='socket'"
    yield f"put <listen {listen}/> into its <graphics> ({case.edit})"


def _in_qemu_conf(kind: str, default: Default, addresses: list[str]) -> str:
    if not addresses:
        return f"{kind}_auto_unix_socket = 1"
    listen = f"{kind}_listen = {toml(addresses[0])}"
    is_address = default.setting == f"{kind}_listen"
    return listen if is_address else f"{kind}_auto_unix_socket = 0 and {listen}"


def _not_switched_off(case: Case, display: Display) -> Refusal:
    return case.refusal(
        f'a {display.kind} display, but the policy says display = "off"',
        where=case.rules.where("console.display"),
        fix=f"{case.edit}: {without(case, display)}",
    )


def _not_guarded(case: Case, display: Display) -> Refusal:
    fix = f"{case.edit}: {without(case, display)}"
    if not consoles_of(case):
        fix += "; put <graphics type='spice'/> or <graphics type='vnc'/> there"
    return case.refusal(
        f"a {display.kind} display; virt-warden cannot enforce its encryption and password",
        fix=fix,
    )


def _certificates_without_tls(case: Case) -> bool:
    rules = case.rules
    return (
        rules.client_certificates == "required" and rules.tls != "required" and has_consoles(case)
    )


def plan(case: Case) -> list[Change]:
    if case.op is Op.AHEAD:
        return [*_certificates(case)]
    if case.op is not Op.START:
        return []
    return [*_certificates(case), *console_sasl.plan(case), *_restrictions(case)]


def _certificates(case: Case) -> list[IssueCertificate]:
    if not has_certificate(case):
        return []
    written = [each for console in consoles_of(case) for each in addresses_of(case, console)]
    addresses = [address for each in written for address in (each, *looked_up(case, each))]
    names = (*case.facts.host_names(), *(a for a in addresses if a and a != "unix"))
    # QEMU reads SPICE's once.
    lasts = any(map(has_port, consoles_of(case, "spice")))
    return [
        IssueCertificate(
            directory=f"{case.cell}/tls",
            user=case.user,
            common_name=case.domain.uuid,
            names=tuple(dict.fromkeys(names)),
            days=consoles.DAYS_WITHOUT_RENEWAL if lasts else consoles.DAYS,
        )
    ]


def _is_restricted(case: Case) -> bool:
    """Whether somebody is to be kept from a port of the domain's displays."""
    wanted = case.rules.display == "on" and bool(case.rules.admin_workstations)
    return wanted and any(map(has_port, case.domain.displays))


def _restrictions(case: Case) -> list[RestrictPorts]:
    """Raises Refusal where what worked at `prepare` works no more."""
    if not _is_restricted(case):
        return []
    ports = [port for display in case.domain.displays for port in display.ports]
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
    """It connects to every console, as a viewer would."""
    # Another emulator than the wrapper asks viewers for what it will.
    is_wrapped = "emulator" not in case.rules.exceptions
    return [*(console_probe.breaches(case) if is_wrapped else ()), *_verify_restrictions(case)]


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

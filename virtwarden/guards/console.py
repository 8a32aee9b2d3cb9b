# SPDX-License-Identifier: GPL-2.0-or-later
"""Guard `console`: only viewers with the password see a VM's console, over TLS."""

from __future__ import annotations

from collections.abc import Iterator

from virtwarden.changes import Change, IssueCertificate, RestrictPorts
from virtwarden.domain.model import Display
from virtwarden.errors import Refusal
from virtwarden.guards import console_probe, console_sasl
from virtwarden.guards.base import Case, Op
from virtwarden.guards.displays import (
    Default,
    addresses_of,
    bound_to,
    consoles_of,
    default_of,
    has_consoles,
    has_port,
)
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
    if case.rules.display == "off":
        return [] if display.kind == "vnc" else [_not_switched_off(case, display)]
    if display.kind == "spice" and "spice" in case.rules.exceptions:
        return []
    if display.kind != "vnc":
        return [_not_vnc(case, display)]
    unlisted = [
        address for address in addresses_of(case, display) if address not in case.rules.listen
    ]
    default = default_of(case, display)
    if default is None or default.address in case.rules.listen:
        return [_not_listed(case, address) for address in unlisted]
    others = [_not_listed(case, address) for address in unlisted if address != default.address]
    return [_not_listed_by_libvirt(case, default), *others]


def _not_listed(case: Case, address: str) -> Refusal:
    listed = case.rules.listen
    way = f"one of {', '.join(listed)}: {case.edit}" if listed else _without_a_console(case)
    return case.refusal(
        f"VNC would listen on {address or 'an address that is not known'}",
        where=case.rules.where("console.listen"),
        fix=f"{way}; or add it to listen",
    )


def _not_listed_by_libvirt(case: Case, default: Default) -> Refusal:
    """What qemu.conf says for all VMs, and how to say it there, here, or in the policy."""
    said = f", as {default.setting} in {default.where} says" if default.setting else ""
    ways = [*_other_listens(case, default)] or [_without_a_console(case)]
    return case.refusal(
        f"VNC would listen on {default.address}{said}",
        where=case.rules.where("console.listen"),
        fix="; or ".join([*ways, f"add {toml(default.address)} to listen"]),
    )


def _without_a_console(case: Case) -> str:
    return f"take out its <graphics type='vnc'> ({case.edit}), since the policy lists no address"


def _other_listens(case: Case, default: Default) -> Iterator[str]:
    """How to have it listen where the policy allows it."""
    addresses = [address for address in case.rules.listen if address != "unix"]
    if not case.rules.listen:
        return
    if default.setting:
        yield f"write {_in_qemu_conf(default, addresses)} there: systemctl restart libvirtd"
    listen = f"type='address' address='{addresses[0]}'" if addresses else "type='socket'"
    yield f"put <listen {listen}/> into its <graphics> ({case.edit})"


def _in_qemu_conf(default: Default, addresses: list[str]) -> str:
    if not addresses:
        return "vnc_auto_unix_socket = 1"
    listen = f"vnc_listen = {toml(addresses[0])}"
    return listen if default.setting == "vnc_listen" else f"vnc_auto_unix_socket = 0 and {listen}"


def _not_switched_off(case: Case, display: Display) -> Refusal:
    return case.refusal(
        f'a {display.kind} display, but the policy says display = "off"',
        where=case.rules.where("console.display"),
        fix=f"{case.edit}: {_without(case, display)}",
    )


def _not_vnc(case: Case, display: Display) -> Refusal:
    fix = f"{case.edit}: {_without(case, display)}"
    if not consoles_of(case):
        fix += "; put <graphics type='vnc'/> there"
    if display.kind == "spice":
        exceptions = toml(sorted({*case.rules.exceptions, "spice"}))
        fix += f"; or exceptions = {exceptions} for it, {case.entry}"
    return case.refusal(
        f"a {display.kind} display; virt-warden cannot enforce its encryption and password",
        fix=fix,
    )


def _without(case: Case, display: Display) -> str:
    """What to do to the XML, so that the display is gone and libvirt takes the rest."""
    bound = bound_to(case, display)
    rest = f", and what goes with it: {bound}" if bound else ""
    return f"take out the whole <graphics type='{display.kind}'>{rest}"


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
    if not has_consoles(case) or case.rules.tls != "required":
        return []
    addresses = [each for console in consoles_of(case) for each in addresses_of(case, console)]
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
    return wanted and any(map(has_port, case.domain.displays))


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

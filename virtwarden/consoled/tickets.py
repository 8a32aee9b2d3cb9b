# SPDX-License-Identifier: GPL-2.0-or-later
"""The console service: one process, as root, for one operator.

systemd starts it for each connection (packaging/systemd/virt-warden-console.socket). It makes a
password that QEMU accepts until the ticket expires. It waits until a viewer has connected with it,
and then revokes it: the ticket is for one connection.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from dataclasses import dataclass

import libvirt

from virtwarden import log
from virtwarden.consoled import operators, quota
from virtwarden.consoled.abandoned import revoke_of
from virtwarden.consoled.attempts import attempt
from virtwarden.consoled.latest import Latest
from virtwarden.consoled.logins import Login, PasswordLogin, SaslLogin, SpiceLogin
from virtwarden.consoled.operators import Operator
from virtwarden.consoled.talk import Talk, Ticket
from virtwarden.consoled.viewers import Watch
from virtwarden.domain.model import Display, Domain, read
from virtwarden.errors import HostError, WardenError
from virtwarden.guards.displays import GUARDED, has_port
from virtwarden.guards.ticket import closed_ports
from virtwarden.libvirtd.connection import connected
from virtwarden.paths import Paths
from virtwarden.pki import authority
from virtwarden.policy import Policy, Rules, load
from virtwarden.words import shown

# Time for a person to type a password.
_PATIENCE_SECONDS = 60
_LONGEST_NAME = 100
_EVERY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104 - where a console may listen


def serve(paths: Paths, connection: socket.socket) -> int:
    """Answer one operator, and make sure that their ticket is used once. Gives the exit code."""
    # This comes before the connection to libvirt: otherwise no event arrives
    # (virEventRegisterDefaultImpl).
    libvirt.virEventRegisterDefaultImpl()
    # A service that is stopped while a ticket is valid revokes the ticket first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    talk = Talk(connection, _PATIENCE_SECONDS)
    operator = None
    untrusted_name = "-"
    try:
        operator = operators.peer(connection)
        policy = load(paths, store=True)
        # Who may see no console at all keeps nobody from a place, however long the name takes.
        if not operators.is_among(operator, policy.operators):
            raise _nothing_for(operator)
        with quota.request(paths, operator):
            untrusted_name = talk.hear("domain")
            with connected() as hypervisor:
                request = _request(policy, hypervisor, operator, untrusted_name)
                _authenticate(paths, operator, talk)
                watch = _give(paths, hypervisor, request, talk)
                connection.close()
                watch.until_used(request.rules.ticket_seconds)
    except WardenError as error:
        who = operator.name if operator else "nobody"
        name = untrusted_name[:_LONGEST_NAME]
        log.event(log.Level.WARNING, "console-refused", domain=name, operator=who, reason=error)
        _tell(talk, error)
        return 1
    return 0


def _tell(talk: Talk, error: WardenError) -> None:
    try:
        talk.say(refused=str(error))
    except HostError:
        return  # the operator hung up


@dataclass(frozen=True)
class _Request:
    """What an operator asks for, and who asks."""

    operator: Operator
    found: libvirt.virDomain
    domain: Domain
    rules: Rules


def _nothing_for(operator: Operator) -> HostError:
    """One answer for all cases, so that nobody can find out which domains exist.

    It does not say where the rule is: that would tell which names the policy has.
    """
    return HostError(
        f"there is no domain of that name whose console {operator.name} may see",
        fix="see its name: virsh list --all; or have the admin add you to operators, in"
        " [console] of the policy",
    )


def _request(
    policy: Policy, hypervisor: libvirt.virConnect, operator: Operator, untrusted_name: str
) -> _Request:
    rules = policy.rules_for(untrusted_name)
    found = _find(hypervisor, untrusted_name)
    if found is None or not operators.is_among(operator, rules.operators):
        raise _nothing_for(operator)
    name = untrusted_name  # libvirt has a domain of this name, and the operator may know of it
    if not policy.manages(name):
        raise HostError(f"virt-warden does not manage {name}", where=policy.where("managed"))
    if not found.isActive():
        raise HostError(f"{name} does not run", fix=f"virsh start {shown(name)}")
    return _Request(operator, found, read(str(found.XMLDesc(0)).encode()), rules)


def _find(hypervisor: libvirt.virConnect, untrusted_name: str) -> libvirt.virDomain | None:
    """Find the domain only by its name, as the policy does."""
    try:
        return hypervisor.lookupByName(untrusted_name)
    except (libvirt.libvirtError, ValueError):  # ValueError: a name with a zero in it
        return None


def _authenticate(paths: Paths, operator: Operator, talk: Talk) -> None:
    if operator.is_root:
        return
    with attempt(paths, operator.uid):
        talk.say(ask="password")
        operators.authenticate(operator, talk.hear("password"))


def _give(paths: Paths, hypervisor: libvirt.virConnect, request: _Request, talk: Talk) -> Watch:
    """Give the ticket. The watch begins before the ticket can be used."""
    rules, domain = request.rules, request.domain
    console = _console(domain, rules, closed_ports(paths, domain.uuid))
    ca = paths.console_ca / authority.CERTIFICATE
    login = _login(paths, request, console)
    ticket = Ticket(
        domain=domain.name,
        host=_host(console),
        port=_port(console, rules),
        password=login.fresh_password(),
        seconds=rules.ticket_seconds,
        ca=ca.read_text() if rules.tls == "required" else "",
        user=login.user,
        certificate=rules.client_certificates == "required",
        kind=console.kind,
        subject=f"CN={domain.uuid}" if console.kind == "spice" else "",
    )
    # What a killed service left is over before this one could take its place and fail.
    revoke_of(paths, hypervisor, domain.uuid)
    kind = "sasl" if isinstance(login, SaslLogin) else console.kind
    latest = Latest.new(paths, domain.uuid, request.operator.name, kind)
    watch = Watch(hypervisor, request.found, request.operator, login, latest)
    try:
        login.allow(ticket.password, ticket.seconds)
        log.event(
            log.Level.NOTICE,
            "console-ticket",
            domain=domain.name,
            uuid=domain.uuid,
            operator=request.operator.name,
            seconds=ticket.seconds,
        )
        talk.say_ticket(ticket)
    except BaseException:  # the operator hung up, or the service is stopped
        watch.end()
        raise
    return watch


def _login(paths: Paths, request: _Request, console: Display) -> Login:
    if console.kind == "spice":
        return SpiceLogin(request.found)
    if request.rules.sasl == "tickets":
        return SaslLogin(paths, request.domain.uuid, request.operator.name)
    return PasswordLogin(request.found)


def _console(domain: Domain, rules: Rules, closed: frozenset[int] = frozenset()) -> Display:
    """The first display that viewers reach by a TCP port that is not closed."""
    name = shown(domain.name)
    found = [display for display in domain.displays if display.kind in GUARDED]
    if not found or rules.display == "off":
        raise HostError(f"{domain.name} has no display", where=rules.where("console.display"))
    ports = [(display, _port(display, rules)) for display in found if has_port(display)]
    reached = [display for display, port in ports if port and port not in closed]
    if not reached:
        raise HostError(
            f"the console of {domain.name} listens on no TCP port: libvirt shows it",
            fix=f"on this host: virt-manager, or virt-viewer --attach -c qemu:///system {name};"
            f" for operators it needs a port: virt-warden enrol --console port {name}, or"
            f" virsh edit {name}",
        )
    console = reached[0]
    if rules.sasl == "kerberos":
        raise HostError(
            f"the console of {domain.name} asks for a Kerberos ticket, which only its realm gives",
            where=rules.where("console.sasl"),
            fix="kinit, then point a viewer at it",
        )
    asks_by_sasl = rules.sasl != "off" and console.kind == "vnc"
    if rules.password != "required" and not asks_by_sasl:
        raise HostError(
            f"the console of {domain.name} needs no password",
            where=rules.where("console.password"),
            fix='set password = "required", then stop it and start it again',
        )
    return console


def _port(console: Display, rules: Rules) -> int:
    return console.viewers_port(tls=rules.tls == "required")


def _host(console: Display) -> str:
    kinds = ("address", "network")
    addresses = [one.address for one in console.listens if one.kind in kinds] or [console.address]
    return os.uname().nodename if addresses[0] in _EVERY_ADDRESS else addresses[0]

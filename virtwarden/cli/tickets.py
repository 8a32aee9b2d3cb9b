"""The console service: one operator at a time, in a process of its own, as root.

systemd starts it for each connection (packaging/systemd/virt-warden-console.socket). It gives out
a password that QEMU takes until the ticket runs out, waits until a viewer has come in by it, and
takes it back then: the ticket is for one connection.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import libvirt

from virtwarden import log, passwords
from virtwarden.cli import monitor
from virtwarden.cli.connection import connected
from virtwarden.consoled import operators
from virtwarden.consoled.attempts import attempt
from virtwarden.consoled.operators import Operator
from virtwarden.consoled.talk import Talk, Ticket
from virtwarden.domain import Display, Domain, read
from virtwarden.errors import HostError, WardenError
from virtwarden.guards.base import shown
from virtwarden.paths import Paths
from virtwarden.pki import authority
from virtwarden.policy import Rules, load
from virtwarden.system import files, sasl

# To type a password in.
_PATIENCE_SECONDS = 60
_LONGEST_NAME = 100
_SASL_PASSWORD_BYTES = 18
_TICK_MS = 500
_EVERY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104 - where a console may listen


def serve(paths: Paths, connection: socket.socket) -> int:
    """Answer one operator, and see to it that their ticket is used once. Gives the exit code."""
    # Before libvirt is connected to, or its events do not come (virEventRegisterDefaultImpl).
    libvirt.virEventRegisterDefaultImpl()
    # Stopped in the middle, it takes the ticket back first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    talk = Talk(connection, _PATIENCE_SECONDS)
    operator = None
    wanted = "-"
    try:
        operator = operators.peer(connection)
        wanted = talk.hear("domain")
        with connected() as hypervisor:
            request = _request(paths, hypervisor, operator, wanted)
            _authenticate(paths, operator, talk)
            watch = _give(paths, hypervisor, request, talk)
            connection.close()
            watch.until_used(request.rules.ticket_seconds)
    except WardenError as error:
        who = operator.name if operator else "nobody"
        name = wanted[:_LONGEST_NAME]
        log.event(log.Level.WARNING, "console-refused", domain=name, operator=who, reason=error)
        _tell(talk, error)
        return 1
    return 0


def _tell(talk: Talk, error: WardenError) -> None:
    try:
        talk.say(refused=str(error))
    except HostError:
        return  # whoever asked is gone


@dataclass(frozen=True)
class _Request:
    """What is asked for, and by whom."""

    operator: Operator
    found: libvirt.virDomain
    domain: Domain
    rules: Rules


def _request(
    paths: Paths, hypervisor: libvirt.virConnect, operator: Operator, wanted: str
) -> _Request:
    policy = load(paths)
    rules = policy.rules_for(wanted)
    found = _find(hypervisor, wanted)
    # One answer for both, so that nobody learns which domains there are.
    if found is None or not operators.may_look(operator, rules):
        raise HostError(
            f"there is no domain {wanted} whose console {operator.name} may see",
            where=rules.where("console.operators"),
            fix="see its name: virsh list --all; or have the admin add you to operators there",
        )
    if not policy.manages(wanted):
        raise HostError(f"virt-warden does not manage {wanted}", where=policy.where("managed"))
    if not found.isActive():
        raise HostError(f"{wanted} does not run", fix=f"virsh start {shown(wanted)}")
    return _Request(operator, found, read(str(found.XMLDesc(0)).encode()), rules)


def _find(hypervisor: libvirt.virConnect, name: str) -> libvirt.virDomain | None:
    """By its name alone: the policy goes by names."""
    try:
        return hypervisor.lookupByName(name)
    except libvirt.libvirtError:
        return None


def _authenticate(paths: Paths, operator: Operator, talk: Talk) -> None:
    if operator.is_root:
        return
    with attempt(paths, operator.uid):
        talk.say(ask="password")
        operators.authenticate(operator, talk.hear("password"))


def _give(paths: Paths, hypervisor: libvirt.virConnect, request: _Request, talk: Talk) -> _Watch:
    """What the ticket opens is watched from before it can be used."""
    rules, domain = request.rules, request.domain
    host, port = _place(domain, rules)
    ca = paths.console_ca / authority.CERTIFICATE
    door = _door(paths, request)
    ticket = Ticket(
        domain=domain.name,
        host=host,
        port=port,
        password=door.fresh_password(),
        seconds=rules.ticket_seconds,
        ca=ca.read_text() if rules.tls == "required" else "",
        user=door.user,
        certificate=rules.client_certificates == "required",
    )
    watch = _Watch(hypervisor, request.found, request.operator, door)
    door.admit(ticket.password, ticket.seconds)
    log.event(
        log.Level.NOTICE,
        "console-ticket",
        domain=domain.name,
        uuid=domain.uuid,
        operator=request.operator.name,
        seconds=ticket.seconds,
    )
    talk.say_ticket(ticket)
    return watch


class _Door(Protocol):
    """How QEMU is told who may come in. `user` is the name that viewers give, or empty."""

    @property
    def user(self) -> str:
        """The name."""

    def fresh_password(self) -> str:
        """A password as long as this way allows."""

    def admit(self, password: str, seconds: int) -> None:
        """Let in who gives this password, for so long."""

    def shut(self) -> None:
        """Let nobody in any more; who looks already goes on looking."""


def _door(paths: Paths, request: _Request) -> _Door:
    if request.rules.sasl == "tickets":
        return _SaslDoor(paths, paths.cell(request.domain.uuid) / "sasl", request.operator.name)
    return PasswordDoor(request.found)


@dataclass(frozen=True)
class PasswordDoor:
    """VNC's own password. A crash in between leaves one that nobody knows."""

    domain: libvirt.virDomain
    user: str = ""

    def fresh_password(self) -> str:
        """See _Door."""
        return passwords.fresh()

    def admit(self, password: str, seconds: int) -> None:
        """See _Door. QEMU itself sees to the time."""
        monitor.command(self.domain, "set_password", protocol="vnc", password=passwords.fresh())
        monitor.command(self.domain, "expire_password", protocol="vnc", time=f"+{seconds}")
        monitor.command(self.domain, "set_password", protocol="vnc", password=password)

    def shut(self) -> None:
        """See _Door."""
        monitor.command(self.domain, "expire_password", protocol="vnc", time="now")
        monitor.command(self.domain, "set_password", protocol="vnc", password=passwords.fresh())


@dataclass
class _SaslDoor:
    """A name and a password by SASL. Nothing in SASL sees to the time: the service does."""

    paths: Paths
    directory: Path
    user: str
    admitted: bytes = b""

    def fresh_password(self) -> str:
        """See _Door."""
        return secrets.token_urlsafe(_SASL_PASSWORD_BYTES)

    def admit(self, password: str, seconds: int) -> None:
        """See _Door."""
        if not (self.directory / sasl.DATABASE).exists():
            raise HostError("it was started without SASL", fix="stop it and start it anew")
        private = self.paths.run / "keys"
        files.private_directory(private)
        self.admitted = sasl.admit(self.directory, self.user, password, private)

    def shut(self) -> None:
        """See _Door."""
        sasl.shut(self.directory, self.admitted)


def _place(domain: Domain, rules: Rules) -> tuple[str, int]:
    """Where a viewer finds the console."""
    consoles = [display for display in domain.displays if display.kind == "vnc"]
    if not consoles or rules.display == "off":
        raise HostError(f"{domain.name} has no VNC display", where=rules.where("console.display"))
    if rules.sasl == "kerberos":
        raise HostError(
            f"the console of {domain.name} asks for a Kerberos ticket, which only its realm gives",
            where=rules.where("console.sasl"),
            fix="kinit, then point a viewer at it",
        )
    if rules.password != "required" and rules.sasl == "off":
        raise HostError(
            f"the console of {domain.name} asks for no password",
            where=rules.where("console.password"),
            fix='set password = "required", then start it anew',
        )
    address = _address(consoles[0])
    if address is None:
        raise HostError(
            f"the console of {domain.name} listens on no TCP port",
            fix=f"give it an address: virsh edit {shown(domain.name)}",
        )
    host = os.uname().nodename if address in _EVERY_ADDRESS else address
    return host, int(consoles[0].port)


def _address(console: Display) -> str | None:
    if not console.port.isdecimal() or console.socket:
        return None
    if not console.listens:
        return console.address
    addresses = [one.address for one in console.listens if one.kind in ("address", "network")]
    return addresses[0] if addresses else None


class _Watch:
    """What becomes of a ticket, as libvirt tells of the display's viewers.

    libvirt's graphics event: a viewer connects, is let in (initialize), disconnects.
    """

    def __init__(
        self,
        hypervisor: libvirt.virConnect,
        domain: libvirt.virDomain,
        operator: Operator,
        door: _Door,
    ) -> None:
        self._domain = domain
        self._door = door
        self._operator = operator
        self._knocking: set[tuple[str, str]] = set()
        self._viewer = ""
        kind = libvirt.VIR_DOMAIN_EVENT_ID_GRAPHICS
        hypervisor.domainEventRegisterAny(domain, kind, self._hear, None)

    def until_used(self, seconds: int) -> None:
        """Wait for the first viewer who is let in, and let nobody in after them.

        A ticket that nobody used runs out in QEMU by itself, which counts whole seconds.
        """
        deadline = time.monotonic() + seconds + 1
        # libvirt's loop waits on through a signal: it has to come back for Python to see that.
        libvirt.virEventAddTimeout(_TICK_MS, lambda *_: None, None)
        try:
            while not self._viewer and time.monotonic() < deadline:
                libvirt.virEventRunDefaultImpl()
        finally:
            if self._viewer or self._door.user:
                self._door.shut()
        if self._viewer:
            self._log(log.Level.NOTICE, "console-opened", viewer=self._viewer)
        else:
            self._log(log.Level.NOTICE, "console-unused")

    def _hear(
        self,
        _hypervisor: libvirt.virConnect,
        _domain: libvirt.virDomain,
        phase: int,
        _local: dict[str, str],
        remote: dict[str, str],
        *_: object,
    ) -> None:
        viewer = (remote["node"], remote["service"])
        if phase == libvirt.VIR_DOMAIN_EVENT_GRAPHICS_CONNECT:
            self._knocking.add(viewer)
        elif phase == libvirt.VIR_DOMAIN_EVENT_GRAPHICS_INITIALIZE:
            self._knocking.discard(viewer)
            self._viewer = self._viewer or viewer[0]
        elif viewer in self._knocking:
            self._knocking.discard(viewer)
            self._log(log.Level.WARNING, "console-denied", viewer=viewer[0])

    def _log(self, level: log.Level, what: str, **more: object) -> None:
        name, uuid = self._domain.name(), self._domain.UUIDString()
        log.event(level, what, domain=name, uuid=uuid, operator=self._operator.name, **more)

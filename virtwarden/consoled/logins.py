# SPDX-License-Identifier: GPL-2.0-or-later
"""How QEMU learns who may see a console: with the display's own password, or with SASL."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import libvirt

from virtwarden.enrolment import passwords
from virtwarden.errors import HostError
from virtwarden.libvirtd import monitor
from virtwarden.paths import Paths
from virtwarden.system import files, sasl

_LONG_PASSWORD_BYTES = 18


class Login(Protocol):
    """How QEMU learns with which password a viewer may see a console, once.

    `user` is the name that viewers give, or empty. `quiet_seconds` is how long a viewer that was
    let in must open no more connections before all of its own are there: each needs the password.
    """

    user: str
    quiet_seconds: int

    def fresh_password(self) -> str:
        """A random password, as long as this login allows."""

    def allow(self, password: str, seconds: int) -> None:
        """Make QEMU accept this password for so many seconds. Raises HostError."""

    def keep(self, seconds: int) -> None:
        """Make QEMU accept the same password for so many seconds from now on. Raises HostError."""

    def revoke(self) -> None:
        """Make QEMU accept it no longer; a connected viewer stays connected."""


@dataclass
class PasswordLogin(Login):
    """VNC's own password. A crash between two commands leaves a password that nobody knows."""

    protocol: ClassVar[str] = "vnc"

    domain: libvirt.virDomain
    user: str = ""
    quiet_seconds: int = 0

    def fresh_password(self) -> str:
        return passwords.fresh()

    def allow(self, password: str, seconds: int) -> None:
        """QEMU itself makes the password expire."""
        self._set(self.fresh_password())
        self.keep(seconds)
        self._set(password)

    def keep(self, seconds: int) -> None:
        self._tell("expire_password", time=f"+{seconds}")

    def revoke(self) -> None:
        self._tell("expire_password", time="now")
        self._set(self.fresh_password())

    def _set(self, password: str) -> None:
        self._tell("set_password", password=password)

    def _tell(self, execute: str, **arguments: str) -> None:
        monitor.command(self.domain, execute, protocol=self.protocol, **arguments)


@dataclass
class SpiceLogin(PasswordLogin):
    """SPICE's own password, which may be long; a viewer has a connection for each channel."""

    protocol: ClassVar[str] = "spice"

    quiet_seconds: int = 2

    def fresh_password(self) -> str:
        return secrets.token_urlsafe(_LONG_PASSWORD_BYTES)


@dataclass
class SaslLogin(Login):
    """A name and a password with SASL. SASL has no time limit: the service ends the password."""

    paths: Paths
    uuid: str
    user: str
    quiet_seconds: int = 0
    admitted: bytes = b""

    @property
    def directory(self) -> Path:
        """Where the domain's QEMU looks names up."""
        return self.paths.cell(self.uuid) / "sasl"

    def fresh_password(self) -> str:
        return secrets.token_urlsafe(_LONG_PASSWORD_BYTES)

    def allow(self, password: str, seconds: int) -> None:
        if not (self.directory / sasl.DATABASE).exists():
            raise HostError("it was started without SASL", fix="stop it and start it again")
        private = self.paths.run / "keys"
        files.private_directory(private)
        self.admitted = sasl.admit(self.directory, self.user, password, private)

    def keep(self, seconds: int) -> None:
        """It ends only when it is revoked."""

    def revoke(self) -> None:
        sasl.shut(self.directory, self.admitted)

    def revoke_all(self) -> None:
        """Make QEMU accept nobody, whoever was to be admitted."""
        sasl.shut_all(self.directory)

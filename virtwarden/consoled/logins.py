# SPDX-License-Identifier: GPL-2.0-or-later
"""How QEMU learns who may see a console: with VNC's own password, or with SASL."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import libvirt

from virtwarden.enrolment import passwords
from virtwarden.errors import HostError
from virtwarden.libvirtd import monitor
from virtwarden.paths import Paths
from virtwarden.system import files, sasl

_SASL_PASSWORD_BYTES = 18


class Login(Protocol):
    """How QEMU learns with which password a viewer may see a console, once.

    `user` is the name that viewers give, or empty.
    """

    user: str

    def fresh_password(self) -> str:
        """A random password, as long as this login allows."""

    def allow(self, password: str, seconds: int) -> None:
        """Make QEMU accept this password for so many seconds. Raises HostError."""

    def revoke(self) -> None:
        """Make QEMU accept it no longer; a connected viewer stays connected."""


@dataclass
class PasswordLogin(Login):
    """VNC's own password. A crash between two commands leaves a password that nobody knows."""

    domain: libvirt.virDomain
    user: str = ""

    def fresh_password(self) -> str:
        return passwords.fresh()

    def allow(self, password: str, seconds: int) -> None:
        """QEMU itself makes the password expire."""
        monitor.command(self.domain, "set_password", protocol="vnc", password=passwords.fresh())
        monitor.command(self.domain, "expire_password", protocol="vnc", time=f"+{seconds}")
        monitor.command(self.domain, "set_password", protocol="vnc", password=password)

    def revoke(self) -> None:
        monitor.command(self.domain, "expire_password", protocol="vnc", time="now")
        monitor.command(self.domain, "set_password", protocol="vnc", password=passwords.fresh())


@dataclass
class SaslLogin(Login):
    """A name and a password with SASL. SASL has no time limit: the service ends the password."""

    paths: Paths
    uuid: str
    user: str
    admitted: bytes = b""

    @property
    def directory(self) -> Path:
        """Where the domain's QEMU looks names up."""
        return self.paths.cell(self.uuid) / "sasl"

    def fresh_password(self) -> str:
        return secrets.token_urlsafe(_SASL_PASSWORD_BYTES)

    def allow(self, password: str, seconds: int) -> None:
        if not (self.directory / sasl.DATABASE).exists():
            raise HostError("it was started without SASL", fix="stop it and start it again")
        private = self.paths.run / "keys"
        files.private_directory(private)
        self.admitted = sasl.admit(self.directory, self.user, password, private)

    def revoke(self) -> None:
        sasl.shut(self.directory, self.admitted)

    def revoke_all(self) -> None:
        """Make QEMU accept nobody, whoever was to be admitted."""
        sasl.shut_all(self.directory)

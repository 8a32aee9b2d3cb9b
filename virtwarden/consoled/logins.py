# SPDX-License-Identifier: GPL-2.0-or-later
"""How QEMU is told who may see a console: by VNC's own password, or by SASL."""

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
    """How QEMU is told by which password a viewer may see a console, once.

    `user` is the name that viewers give, or empty.
    """

    user: str

    def fresh_password(self) -> str:
        """A password as long as this way allows."""

    def allow(self, password: str, seconds: int) -> None:
        """Have QEMU take this password, for so many seconds. Raises HostError."""

    def revoke(self) -> None:
        """Have QEMU take it no more; a viewer that is connected stays so."""


@dataclass
class PasswordLogin(Login):
    """VNC's own password. A crash in between leaves one that nobody knows."""

    domain: libvirt.virDomain
    user: str = ""

    def fresh_password(self) -> str:
        return passwords.fresh()

    def allow(self, password: str, seconds: int) -> None:
        """QEMU itself sees to the time."""
        monitor.command(self.domain, "set_password", protocol="vnc", password=passwords.fresh())
        monitor.command(self.domain, "expire_password", protocol="vnc", time=f"+{seconds}")
        monitor.command(self.domain, "set_password", protocol="vnc", password=password)

    def revoke(self) -> None:
        monitor.command(self.domain, "expire_password", protocol="vnc", time="now")
        monitor.command(self.domain, "set_password", protocol="vnc", password=passwords.fresh())


@dataclass
class SaslLogin(Login):
    """A name and a password by SASL. Nothing in SASL sees to the time: the service does."""

    paths: Paths
    directory: Path
    user: str
    admitted: bytes = b""

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

# SPDX-License-Identifier: GPL-2.0-or-later
"""The change that limits a console's ports to workstations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from virtwarden.changes import worked
from virtwarden.changes.base import Before, Change, Scope
from virtwarden.paths import Paths
from virtwarden.system import portfilter


@dataclass(frozen=True)
class RestrictPorts(Change):
    """Allow only these addresses and networks to reach the TCP ports of a domain's consoles.

    The rules contain the domain's UUID. So removing them does not touch the rules of another domain
    that has the same port by then.
    """

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    domain: str
    backend: str
    ports: tuple[int, ...]
    sources: tuple[str, ...]

    @property
    def promise(self) -> portfilter.PortFilter:
        """The port filter for the kernel. Raises HostError for an invalid UUID, port or address."""
        return portfilter.PortFilter(self.domain, self.ports, self.sources)

    def describe(self) -> str:
        # `explain` stands in 0 for a port that libvirt has not chosen yet.
        ports = " and ".join(str(port) if port else "that libvirt chooses" for port in self.ports)
        return f"allow only {', '.join(self.sources)} to reach TCP port {ports} ({self.backend})"

    def capture(self, paths: Paths) -> Before:
        return {}

    def apply(self, paths: Paths, before: Before) -> None:
        portfilter.BACKENDS[self.backend].install(self.promise)
        worked.note_limited_ports(paths, self.backend)

    def undo(self, paths: Paths, before: Before) -> str:
        portfilter.BACKENDS[self.backend].remove(self.domain)
        return ""

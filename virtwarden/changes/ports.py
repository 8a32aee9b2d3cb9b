"""The change that keeps a console's ports from all but some machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from virtwarden.changes import worked
from virtwarden.changes.base import Before, Change, Scope
from virtwarden.paths import Paths
from virtwarden.system import portfilter


@dataclass(frozen=True)
class RestrictPorts(Change):
    """TCP ports of a domain's consoles that these addresses and networks alone may reach.

    The rules bear the domain's UUID: a port that another domain has by now stays as closed as
    that one's own rules make it.
    """

    scope: ClassVar[Scope] = Scope.RUN
    durable: ClassVar[bool] = False

    domain: str
    backend: str
    ports: tuple[int, ...]
    sources: tuple[str, ...]

    @property
    def promise(self) -> portfilter.PortFilter:
        """What the kernel must hold the ports to. Raises HostError for what is none."""
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

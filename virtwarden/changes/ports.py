# SPDX-License-Identifier: GPL-2.0-or-later
"""The change that limits a console's ports to workstations.

A note of each lets it be restored after a flush.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import ClassVar

from virtwarden.changes import worked
from virtwarden.changes.base import Before, Change, Scope
from virtwarden.paths import Paths
from virtwarden.system import files, portfilter


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
        promise = self.promise
        with files.locked(paths.ports):
            note(paths, self)
            portfilter.BACKENDS[self.backend].install(promise)
        worked.note_limited_ports(paths, self.backend)

    def undo(self, paths: Paths, before: Before) -> str:
        with files.locked(paths.ports):
            portfilter.BACKENDS[self.backend].remove(self.domain)
            files.discard(paths.ports / self.domain)
        return ""


def note(paths: Paths, restriction: RestrictPorts) -> None:
    """Note who may reach a domain's consoles."""
    content = json.dumps(asdict(restriction)).encode()
    files.write_atomically(paths.ports / restriction.domain, content, 0o600)


def noted(paths: Paths, domain: str) -> RestrictPorts | None:
    """Who may reach a domain's consoles, as it was when the domain started; None if anybody."""
    try:
        written = json.loads((paths.ports / domain).read_text())
    except FileNotFoundError:
        return None
    lists = {key: tuple(written[key]) for key in ("ports", "sources")}
    return RestrictPorts(**{**written, **lists})


def every(paths: Paths) -> list[RestrictPorts]:
    """The noted restrictions, one a domain. The caller holds the lock of `paths.ports`."""
    names = sorted(each.name for each in paths.ports.iterdir() if each.name[0] != ".")
    return [found for found in (noted(paths, name) for name in names) if found]

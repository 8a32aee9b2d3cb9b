# SPDX-License-Identifier: GPL-2.0-or-later
"""The disk that `luks adopt` is about."""

from __future__ import annotations

from dataclasses import dataclass

import libvirt

from virtwarden.domain.model import Disk, Domain
from virtwarden.errors import HostError
from virtwarden.libvirtd.connection import find
from virtwarden.luks import adoption
from virtwarden.luks.dialogue import Dialogue
from virtwarden.paths import Paths
from virtwarden.policy import Rules
from virtwarden.system.keys import Place
from virtwarden.words import shown


@dataclass(frozen=True)
class Subject:
    """The disk of a domain, what the policy says of it, and the dialogue with the admin."""

    paths: Paths
    connection: libvirt.virConnect
    domain: Domain
    rules: Rules
    target: str
    place: Place
    node: str
    dialogue: Dialogue

    @property
    def key(self) -> str:
        """The name of the disk's journal."""
        return adoption.key(self.domain.uuid, self.target)

    @property
    def handle(self) -> libvirt.virDomain:
        """The domain, as libvirt has it now."""
        return find(self.connection, self.domain.uuid)

    @property
    def again(self) -> str:
        """The command that goes on where this one left off."""
        return f"virt-warden luks adopt {shown(self.domain.name)} {self.target}"

    @property
    def disk(self) -> Disk:
        """The disk as the domain's XML has it. Raises HostError where there is none."""
        for disk in self.domain.disks:
            if disk.target == self.target:
                return disk
        raise HostError(
            f"{self.domain.name} has no disk {self.target}",
            fix=f"see which it has: virsh domblklist {shown(self.domain.name)}",
        )

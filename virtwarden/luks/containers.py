# SPDX-License-Identifier: GPL-2.0-or-later
"""The disks of a domain that are LUKS containers which virt-warden opens, and their names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from virtwarden.domain.model import Disk, Domain
from virtwarden.domain.uses import Use, uses
from virtwarden.policy import KeySource, Rules
from virtwarden.system.keys import Place
from virtwarden.system.mapper import NODES

PREFIX = "vmw-"
# dmsetup(8): 127 characters at most. udev writes other characters than these as \x.. in its links.
_LONGEST_NAME = 80
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.-]")
# QEMU's own LUKS, and what its RBD driver has; "default" and "qcow" are an AES that nobody trusts.
_BY_QEMU = frozenset({"luks", "luks2", "luks-any"})


@dataclass(frozen=True)
class Container:
    """One disk of a domain whose container the policy names."""

    disk: Disk
    path: str
    key: KeySource | None
    mapper: str
    purpose: str

    @property
    def node(self) -> str:
        """The path that the domain's XML must name as the disk's source."""
        return str(NODES / self.mapper)

    @property
    def what(self) -> str:
        """The word for it in messages."""
        return f"LUKS container of disk {self.disk.target}"

    @property
    def place(self) -> Place | None:
        """Where its key is, as far as the policy says."""
        return key_place(self.key, self.path, self.purpose)

    @property
    def key_file(self) -> str:
        """The file that the key comes from, or an empty string."""
        return self.place.file if self.place else ""


def containers(domain: Domain, rules: Rules) -> tuple[Container, ...]:
    """The domain's disks whose containers the policy names."""
    return tuple(_containers(domain, rules))


def _containers(domain: Domain, rules: Rules) -> Iterator[Container]:
    for disk in domain.disks:
        said = rules.disks.get(disk.target)
        if said is not None and said.luks:
            yield Container(
                disk=disk,
                path=said.luks,
                key=said.key,
                mapper=said.mapper or mapper_name(domain, disk.target),
                purpose=purpose(domain, disk.target),
            )


def mapper_name(domain: Domain, target: str) -> str:
    """The name of a disk's open container where the policy gives none.

    It contains the domain's own name only where that is possible. Otherwise it contains a part of
    the domain's UUID, so that similar names differ.
    """
    clean = _NOT_IN_A_NAME.sub("-", domain.name)
    if clean != domain.name or len(clean) > _LONGEST_NAME:
        clean = f"{clean[:_LONGEST_NAME]}-{domain.uuid[:8]}"
    return f"{PREFIX}{clean}-{target}"


def purpose(domain: Domain, target: str) -> str:
    """The words that ask a person for the key of a disk."""
    return f"Passphrase for disk {target} of {domain.name}"


def key_place(key: KeySource | None, container: str, purpose: str) -> Place | None:
    """A key source of the policy, with what it opens."""
    return Place(key.kind, key.value, container, purpose) if key else None


def encrypted_by_qemu(disk: Disk) -> bool:
    """Whether QEMU encrypts what it writes to this disk."""
    return disk.encryption in _BY_QEMU


def plain_uses(domain: Domain, rules: Rules) -> tuple[Use, ...]:
    """The files that a domain uses, without those that exist only while a container is open."""
    nodes = {container.node for container in containers(domain, rules)}
    return tuple(use for use in uses(domain) if use.path not in nodes)

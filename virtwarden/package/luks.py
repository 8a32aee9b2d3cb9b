# SPDX-License-Identifier: GPL-2.0-or-later
"""How to open encrypted disks once virt-warden is gone."""

from __future__ import annotations

from collections.abc import Iterator

from virtwarden.domain.model import read
from virtwarden.errors import WardenError
from virtwarden.luks.containers import Container, containers
from virtwarden.paths import Paths
from virtwarden.policy import load
from virtwarden.system.keys import HEADER
from virtwarden.words import shown


def by_hand(paths: Paths) -> Iterator[str]:
    """A line for each disk that libvirt's domains name and that virt-warden opened at each start.

    Reads libvirt's files, whether or not libvirt runs. Gives none where the policy is unreadable.
    """
    try:
        policy = load(paths)
    except WardenError:
        return
    for file in sorted(paths.libvirt_config.glob("*.xml")):
        try:
            domain = read(file.read_bytes())
        except WardenError:
            continue
        for container in containers(domain, policy.rules_for(domain.name)):
            if container.disk.path == container.node:
                yield (
                    f"{shown(domain.name)} needs its disk {container.disk.target} opened before it"
                    f" starts: {command(container)}"
                )


def command(container: Container) -> str:
    """The command that opens a container, for root's shell."""
    path, name, place = shown(container.path), shown(container.mapper), container.place
    read_only = "--readonly " if container.disk.readonly else ""
    plain = f"cryptsetup open {read_only}{path} {name}"
    if place is None or place.kind == "ask":
        return plain
    if place.value == HEADER:
        return f"clevis luks unlock -d {path} -n {name}"
    file = shown(place.file)
    if place.kind == "file":
        return f"cryptsetup open {read_only}--key-file={file} {path} {name}"
    decrypt = (
        f"systemd-creds decrypt {file} -"
        if place.kind == "credential"
        else (f"clevis decrypt < {file}")
    )
    return f"{decrypt} | cryptsetup open {read_only}--key-file=- {path} {name}"

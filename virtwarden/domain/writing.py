# SPDX-License-Identifier: GPL-2.0-or-later
"""The images that a domain's user can write, and what each is based on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress

from virtwarden.domain.model import Backing, Disk, Domain
from virtwarden.domain.uses import FILE_KINDS
from virtwarden.errors import FIX, HostError
from virtwarden.paths import Paths
from virtwarden.system import images, qcow2, written
from virtwarden.system.images import Image
from virtwarden.system.written import Written
from virtwarden.words import shown


def remember(paths: Paths, domain: Domain, *, first: bool = False) -> None:
    """Remember for good what the domain's user can write, as its XML has it now.

    `first`: only images of which nothing is remembered yet, and not of an image that somebody put
    in another's place, with its XML as it was. A domain that does not run as its own user has
    nothing that this is about. Raises OSError.
    """
    if not any((label.model, label.kind) == ("dac", "static") for label in domain.labels):
        return
    disks = [disk for disk in domain.disks if not (first and domain.has_former_chain(disk))]
    for image in writable(domain.uuid, disks):
        written.remember(paths.written, image, first=first)


def misleading(domain: Domain) -> Iterator[str]:
    """What a domain that has stopped left in an image's header against its XML, a sentence each.

    libvirt reads such a header where it attaches the image to a running domain, and gives away
    what it names.
    """
    for image in writable(domain.uuid, domain.disks):
        if image.format != "qcow2" or not image.is_known:
            continue
        with suppress(HostError, OSError):
            known = os.path.realpath(image.base.path) if image.base else ""
            untrusted_base = images.named_base(image.path)
            if untrusted_base != known:
                onto = f"-F {image.base.format} -b {shown(known)}" if image.base else "-b ''"
                yield (
                    f"{image.path} says that it is based on {untrusted_base or 'no image'}, but its"
                    f" domain's XML says {known or 'on none'}{FIX}do not attach it to a running"
                    f" domain before: qemu-img rebase -u -f qcow2 {onto} {shown(image.path)}"
                )
            elif qcow2.read(image.path).has_data_file:
                yield (
                    f"{image.path} says that its data lies in another file{FIX}do not attach it to"
                    f" a running domain; see which: qemu-img info -U -f qcow2 {shown(image.path)}"
                )


def writable(uuid: str, disks: Iterable[Disk]) -> Iterator[Written]:
    """Each image that a domain writes, each that it wrote before it got an overlay, and copies."""
    for disk in disks:
        layers: list[Disk | Backing] = [disk, *disk.layers]
        for depth, layer in enumerate(layers):
            is_own = not layer.relabel_off if depth else not disk.readonly
            if not (is_own and layer.kind in FILE_KINDS and layer.path.startswith("/")):
                continue
            image_format = layer.format or "raw"
            below = layers[depth + 1] if depth + 1 < len(layers) else None
            base = None
            if below is not None and image_format != "raw":
                base = Image(below.path, below.format, below.kind == "block")
            is_known = disk.is_spelled_out and (base is None or bool(base.path))
            yield Written(uuid, layer.path, image_format, base, is_known)
        if disk.mirror is not None and disk.mirror.path.startswith("/"):
            # QEMU writes it in a block job. What it will be based on shows once the job ends.
            yield Written(
                uuid, disk.mirror.path, disk.mirror.format or "raw", base=None, is_known=False
            )

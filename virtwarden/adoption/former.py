# SPDX-License-Identifier: GPL-2.0-or-later
"""Removes the former disk of an adoption, which is in the clear until it is overwritten."""

from __future__ import annotations

import os
from pathlib import Path

from virtwarden.adoption import copying
from virtwarden.adoption.subject import Subject
from virtwarden.changes.claims import claims_on
from virtwarden.domain.model import read
from virtwarden.domain.uses import uses
from virtwarden.errors import HostError
from virtwarden.libvirtd.connection import inactive_xml, persistent
from virtwarden.luks import adoption, volumes
from virtwarden.luks.adoption import Adoption, Phase
from virtwarden.system import blocks, cryptsetup, files, keys, mapper
from virtwarden.system.blockstack import below, identity
from virtwarden.words import shown


def remove_old(subject: Subject) -> None:
    """Overwrite and remove the former disk, where that loses nothing."""
    state = adoption.load(subject.paths, subject.domain.uuid, subject.target)
    if state is None or state.phase is not Phase.DONE:
        raise HostError(
            f"disk {subject.target} of {subject.domain.name} is not in a container yet",
            fix=subject.again,
        )
    if Path(state.source).exists():
        must_be_same(state)
        _must_be_nobodys(subject, state)
        _must_open(subject)
        _must_hold_the_same(subject, state)
        _overwrite(subject, state)
    adoption.forget(subject.paths, state)
    subject.dialogue.say(f"{state.source} is overwritten and removed.")


def _must_open(subject: Subject) -> None:
    """Whoever cannot open the container would lose the last copy."""
    with subject.dialogue.answering():
        key = keys.fetch(subject.place)
    cryptsetup.test(subject.place.container, key)


def _must_be_nobodys(subject: Subject, state: Adoption) -> None:
    """Check that no domain uses it, under any name, as it runs or at its next start."""
    leaf = files.look(state.source).leaf
    own = identity(leaf) if leaf else None
    found = subject.connection.listAllDomains()
    xmls = {(d.name(), str(d.XMLDesc(0)).encode()) for d in found}
    xmls |= {(d.name(), inactive_xml(d)) for d in persistent(subject.connection)}
    for name, xml in sorted(xmls):
        for use in uses(read(xml)):
            path = use.original or use.path
            other = files.look(path).leaf
            if path == state.source or (other is not None and identity(other) == own):
                raise HostError(
                    f"domain {name} uses it, as {use.what}",
                    where=state.source,
                    fix=f"virsh edit {shown(name)}, and stop it where it runs",
                )
    volumes.must_be_unused(
        state.source,
        mapper.maps(subject.paths.block_devices),
        claims_on(subject.paths, *own, below(leaf)) if leaf and own else (),
    )


def _must_hold_the_same(subject: Subject, state: Adoption) -> None:
    """A name in /dev may be another disk's since the last boot; a file may have been written."""
    with blocks.opened(state.chain) as source:
        digest = copying.digest(source, subject.dialogue.progress(f"reading {state.source}"))
    if digest != state.digest:
        raise HostError(
            "it is not the disk that was copied, or it changed since",
            where=state.source,
            fix=f"see what it is (lsblk -f {state.source}); where it is of no use, remove it by"
            f" hand, then: {subject.again} --remove-old",
        )


def _overwrite(subject: Subject, state: Adoption) -> None:
    """Write zeros over all of it. File systems, snapshots and flash cells may still keep some."""
    update = subject.dialogue.progress(f"overwriting {state.source}")
    # The kernel refuses O_EXCL for a device that is mounted, or that somebody else holds (open(2)).
    exclusive = os.O_EXCL if state.chain[0].is_device else 0
    handle = os.open(state.source, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | exclusive)
    with os.fdopen(handle, "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        zeros = bytes(4 * 1024 * 1024)
        while file.tell() < size:
            file.write(zeros[: size - file.tell()])
            update(file.tell(), size)
        os.fsync(file.fileno())
    if not state.chain[0].is_device:
        Path(state.source).unlink()


def must_be_same(state: Adoption) -> None:
    """Raise HostError where it is another file.

    The inode tells files apart. A device has a name that root gave, and its numbers change at each
    boot.
    """
    leaf = files.look(state.source).leaf
    if leaf is None or (leaf.number != state.number and not state.chain[0].is_device):
        raise HostError(
            "it is not the disk that adopt started with",
            where=state.source,
            fix=f"see who replaced it: ls -li {state.source}",
        )

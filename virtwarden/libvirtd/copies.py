# SPDX-License-Identifier: GPL-2.0-or-later
"""The copies of a domain's XML that libvirt keeps: managed saves, snapshots and checkpoints.

libvirt starts a domain from a managed save or a snapshot with the wrapper and the user that it
names. When libvirt itself starts, it forgets snapshots and checkpoints whose emulator is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import libvirt

from virtwarden.enrolment.enrol import remember, unenrolled
from virtwarden.errors import FIX
from virtwarden.libvirtd.connection import define, inactive_xml
from virtwarden.paths import Paths


def restore(
    connection: libvirt.virConnect, domain: libvirt.virDomain, paths: Paths
) -> tuple[bool, list[str]]:
    """Make libvirt store the domain and its copies as they were before, from its next start on.

    Gives whether it was enrolled, and a sentence for each copy that stays enrolled. Raises
    HostError where libvirt does not take the domain itself.
    """
    former = inactive_xml(domain)
    xml = unenrolled(former, paths)
    if xml is not None:
        remember(paths, former)
        define(connection, xml)
    return xml is not None, unenrol_copies(domain, paths)


def unenrol_copies(domain: libvirt.virDomain, paths: Paths) -> list[str]:
    """Unenrol the domain in all of its copies.

    Gives a sentence with the fix for each copy where libvirt refused.
    """
    reports = []
    for what, fix, rewrite in _copies(domain, paths):
        try:
            rewrite()
        except libvirt.libvirtError as error:
            reports.append(f"{what} of {domain.name()} stays enrolled: {error}{FIX}{fix}")
    return reports


def _copies(
    domain: libvirt.virDomain, paths: Paths
) -> Iterator[tuple[str, str, Callable[[], None]]]:
    """Each copy: its name, the command that edits it, and the function that unenrols it."""
    of = domain.name()
    if domain.hasManagedSaveImage():
        yield (
            "the managed save",
            f"virsh managedsave-edit {of}",
            partial(_managed_save, domain, paths),
        )
    for snapshot in domain.listAllSnapshots():
        name = snapshot.getName()
        act = partial(_snapshot, domain, snapshot, paths)
        yield f"snapshot {name}", f"virsh snapshot-edit {of} {name}", act
    for checkpoint in domain.listAllCheckpoints():
        name = checkpoint.getName()
        act = partial(_checkpoint, domain, checkpoint, paths)
        yield f"checkpoint {name}", f"virsh checkpoint-edit {of} {name}", act


def _managed_save(domain: libvirt.virDomain, paths: Paths) -> None:
    secure = libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE
    xml = unenrolled(str(domain.managedSaveGetXMLDesc(secure)).encode(), paths)
    if xml is not None:
        domain.managedSaveDefineXML(xml.decode())


def _snapshot(domain: libvirt.virDomain, snapshot: libvirt.virDomainSnapshot, paths: Paths) -> None:
    secure = libvirt.VIR_DOMAIN_SNAPSHOT_XML_SECURE
    xml = unenrolled(str(snapshot.getXMLDesc(secure)).encode(), paths)
    if xml is not None:
        flags = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE
        if snapshot.isCurrent():
            flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_CURRENT
        domain.snapshotCreateXML(xml.decode(), flags)


def _checkpoint(
    domain: libvirt.virDomain, checkpoint: libvirt.virDomainCheckpoint, paths: Paths
) -> None:
    secure = libvirt.VIR_DOMAIN_CHECKPOINT_XML_SECURE
    xml = unenrolled(str(checkpoint.getXMLDesc(secure)).encode(), paths)
    if xml is not None:
        domain.checkpointCreateXML(xml.decode(), libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE)

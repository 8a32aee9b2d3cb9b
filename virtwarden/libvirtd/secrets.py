# SPDX-License-Identifier: GPL-2.0-or-later
"""Secrets in libvirt: the keys of disks that QEMU decrypts.

QEMU's own LUKS (https://libvirt.org/formatstorageencryption.html) takes its key from libvirt's
secret driver. A hook must not call libvirt, so libvirt gets the key before the start.
"""

from __future__ import annotations

from xml.sax.saxutils import escape

import libvirt
from lxml import etree

from virtwarden.domain.model import Disk
from virtwarden.errors import HostError
from virtwarden.system.keys import Secret


def load(connection: libvirt.virConnect, disk: Disk, key: Secret) -> None:
    """Give libvirt the key of a disk, which it keeps only in memory. Raises HostError."""
    secret = _find(connection, disk)
    if secret is None:
        secret = connection.secretDefineXML(_xml(disk))
    else:
        _must_be_fleeting(secret)
    try:
        secret.setValue(key.reveal(), 0)
    except libvirt.libvirtError as error:
        raise HostError(f"libvirt does not take the key of disk {disk.target}: {error}") from None


def _find(connection: libvirt.virConnect, disk: Disk) -> libvirt.virSecret | None:
    try:
        if disk.secret_uuid:
            return connection.secretLookupByUUIDString(disk.secret_uuid)
        return connection.secretLookupByUsage(
            libvirt.VIR_SECRET_USAGE_TYPE_VOLUME, disk.secret_usage
        )
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SECRET:
            return None
        raise HostError(f"libvirt does not say whether it has the key: {error}") from None


def _xml(disk: Disk) -> str:
    """A secret that libvirt neither writes to its disk nor gives to a client."""
    names = (
        f"<uuid>{escape(disk.secret_uuid)}</uuid>"
        if disk.secret_uuid
        else f"<usage type='volume'><volume>{escape(disk.secret_usage)}</volume></usage>"
    )
    return f"<secret ephemeral='yes' private='yes'>{names}</secret>"


def _must_be_fleeting(secret: libvirt.virSecret) -> None:
    told = etree.fromstring(secret.XMLDesc(0))
    if (told.get("ephemeral"), told.get("private")) != ("yes", "yes"):
        uuid = secret.UUIDString()
        raise HostError(
            f"libvirt's secret {uuid} is not both ephemeral and private: it lies on libvirt's disk,"
            " or can be read by every client",
            fix=f"virsh secret-undefine {uuid}, then again: virt-warden luks load",
        )

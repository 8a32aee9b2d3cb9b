# SPDX-License-Identifier: GPL-2.0-or-later
"""Directories of the host that a VM shares by virtiofs: who serves them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from virtwarden.audit.item import Check, Item, Severity
from virtwarden.domain.model import Domain

VIRTIOFS = Check(
    "vm.virtiofs",
    Severity.MEDIUM,
    "No program of root's serves it a directory by virtiofs",
    "A program of root's serves it a directory by virtiofs",
    "libvirt runs virtiofsd as root. What the guest's root writes is root's on the host, setuid"
    " bits too, and a guest that breaks out of virtiofsd is root there.",
    "virsh edit (libvirt 10 and later): in its <filesystem>, <idmap> with <uid start='0'"
    " target='N' count='65536'/> and a <gid> like it, for free ids N to N+65535; then chown the"
    " directory to N. Before libvirt 10: a network file system instead",
)


def checks(managed: Sequence[Domain]) -> Iterator[Item]:
    """Look at each domain with such a share."""
    for domain in managed:
        shares = [each for each in domain.filesystems if each.driver == "virtiofs"]
        served = [each for each in shares if each.served_as in ("", "0") and not each.socket]
        if shares:
            seen = ", ".join(each.directory for each in served) or "each has <idmap>, or its own"
            yield VIRTIOFS.judged(not served, seen, domain.name)

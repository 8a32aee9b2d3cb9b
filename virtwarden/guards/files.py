# SPDX-License-Identifier: GPL-2.0-or-later
"""The review of a host file that a domain uses, for all guards."""

from __future__ import annotations

import stat

from virtwarden.changes import Claim
from virtwarden.changes.claims import conflict
from virtwarden.domain.uses import Use
from virtwarden.errors import HostError, Refusal
from virtwarden.guards.base import Case
from virtwarden.guards.pathways import (
    Swapper,
    libvirts_own,
    part_of_the_host,
    service_swapper,
    swapper,
)
from virtwarden.system.blockstack import identity
from virtwarden.system.devicenames import is_by_content
from virtwarden.system.files import Inode
from virtwarden.words import shown


def review(case: Case, use: Use) -> list[Refusal]:
    """Why a file, or its path, cannot be used; empty if it can."""
    where = f"{use.what} ({use.path})"
    edit = case.edit
    try:
        found = case.facts.look(use.path)
    except HostError as error:
        return [case.refusal(error.what, where=where, fix=error.fix or edit)]
    hosts = part_of_the_host(use.path, case.paths, write=use.write)
    if hosts:
        return [
            case.refusal(
                f"files in {hosts} belong to the host",
                where=where,
                fix=f"copy or move it to /var/lib/libvirt/images, then: {edit}",
            )
        ]
    if is_by_content(use.path):
        return [
            case.refusal(
                "where this name leads is written on the disks, and a guest may write the same on"
                " its own",
                where=where,
                fix="name it by /dev/VG/LV, /dev/mapper or /dev/disk/by-id, one that leads to"
                f" {shown(found.leaf.path if found.leaf else use.path)}: {edit}, or the policy",
            )
        ]
    if found.symlink:
        return [
            case.refusal(
                f"{found.symlink} is a symlink", where=where, fix=f"name {found.real}: {edit}"
            )
        ]
    enemy = swapper(found.directories, case.rules.uid_range, case.vm_groups)
    if enemy:
        return [
            case.refusal(
                f"another user can swap it: {enemy}",
                where=where,
                fix="move it into a directory that root owns, such as /var/lib/libvirt/images",
            )
        ]
    service = _service_swapper(case, found.directories)
    if service:
        return [
            case.refusal(
                f"another user can swap it: {service.what}",
                where=where,
                fix="move it into a directory that root owns, such as /var/lib/libvirt/images, or:"
                f" {service.fix}",
            )
        ]
    if found.leaf is None:
        if not use.must_exist:
            return []
        return [case.refusal("it is not there", where=where, fix=f"make it, or {edit}")]
    return _review_inode(case, use, found.leaf, where)


def _service_swapper(case: Case, directories: tuple[Inode, ...]) -> Swapper | None:
    """The start gives libvirt's own directories to root before anything in them is followed."""
    own = libvirts_own(case.paths)
    others = [step for step in directories if step.path not in own]
    return service_swapper(others, case.facts.service_groups())


def _review_inode(case: Case, use: Use, inode: Inode, where: str) -> list[Refusal]:
    if not (stat.S_ISREG(inode.mode) or stat.S_ISBLK(inode.mode)):
        return [
            case.refusal(
                "it is not a regular file or block device",
                where=where,
                fix=case.edit,
            )
        ]
    if stat.S_ISREG(inode.mode) and inode.links > 1:
        return [
            case.refusal(
                f"it has {inode.links} hard links; another domain or user may have one of them",
                where=where,
                fix=f"find the others (find -xdev -samefile {use.path}) and remove them, or give"
                " this domain its own copy",
            )
        ]
    own_claim = claim(case, use, inode)
    refusal = conflict(own_claim, case.facts.claims_near(own_claim))
    if refusal is not None:
        return [case.refusal(refusal.what, where=where, fix=refusal.fix)]
    lowest, highest = case.rules.uid_range
    own = case.account.uid if case.account and use.given else -1
    is_anothers = lowest <= inode.uid <= highest and inode.uid != own
    # What a guest can have written, no other VM boots or installs from.
    if is_anothers and (use.shared or not use.given):
        return [
            case.refusal(
                f"it belongs to a VM's user (uid {inode.uid}), which can have written it",
                where=where,
                fix="compare it with its original, or put that in its place, then:"
                f" chown root: {shown(use.path)}",
            )
        ]
    # libvirt leaves it a disk that was attached while that VM ran. Without a process, that user
    # holds no descriptor of it either, and the start takes it back.
    if is_anothers and case.facts.has_processes(inode.uid):
        return [
            case.refusal(
                f"it belongs to the user of another running VM (uid {inode.uid}), which can write"
                " it as long as it runs",
                where=where,
                fix=f"see which VM that is: ps -fu {inode.uid}; shut it down, then start this one",
            )
        ]
    return []


def is_left_alone(case: Case, use: Use, inode: Inode) -> bool:
    """Whether a shared file stays as it is: each user can read it, and its file system takes no ACL
    by which only some could, such as an ISO on a read-only mount, or a base on NFS.

    No VM's user may write it: not as its owner, to whom libvirt may have left it, nor by a group.
    """
    if use.write or use.taken_by_libvirt or inode.takes_acls or not inode.mode & stat.S_IROTH:
        return False
    return not swapper([inode], case.rules.uid_range, case.vm_groups)


def claim(case: Case, use: Use, inode: Inode) -> Claim:
    """The claim of this domain on this file, until it stops."""
    # One device may have many nodes: the device itself is what is claimed.
    device, number = identity(inode)
    return Claim(
        path=use.path,
        device=device,
        number=number,
        domain=case.domain.uuid,
        name=case.domain.name,
        write=use.write,
        shareable=use.shareable,
        below=case.facts.below(inode),
    )


def review_device(case: Case, use: Use) -> list[Refusal]:
    """Why what nobody has opened for this domain cannot be its own: the host uses it.

    It can be read, unless only an image's header named it.
    """
    leaf = case.facts.look(use.path).leaf
    if leaf is None or not (use.write or use.path in case.domain.spelled_bases):
        return []
    held = case.facts.held(leaf)
    if not held:
        return []
    what = "it" if held == leaf.path else f"{held}, a loop device over it"
    return [
        case.refusal(
            f"the host itself uses {what}: it is mounted, or swap, or a part of LVM, RAID or"
            " another device",
            where=f"{use.what} ({use.path})",
            fix=f"see by what: lsblk {shown(held)}; then umount, swapoff, or: vgchange -an VG"
            " (and keep LVM from a guest's disks: global_filter in /etc/lvm/lvm.conf)",
        )
    ]

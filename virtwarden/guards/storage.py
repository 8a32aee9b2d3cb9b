"""A VM's files are its own: nobody else's user reads them, and no VM's user owns what is shared."""

from __future__ import annotations

import stat

from virtwarden.changes import Change, Claim, GrantAccess, LockShared, SetAccess, TakeBack
from virtwarden.changes.claims import conflict
from virtwarden.domain import Disk
from virtwarden.errors import HostError, Refusal
from virtwarden.guards.base import Case, Op, shown
from virtwarden.reach import part_of_the_host, search_grants, swapper
from virtwarden.system.files import Inode
from virtwarden.system.process import Process
from virtwarden.uses import FILE_KINDS, Use, uses

NAME = "storage"

# Types of a disk that name no file, but a pool's volume, or a whole directory.
_NAMED_ELSEWHERE = ("volume", "dir")
_PRIVATE_MODE = 0o600
_READ, _WRITE = 4, 2
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def review(case: Case) -> list[Refusal]:
    """See Guard."""
    if case.op is not Op.PREPARE:
        return []
    refusals = _review_shared_directories(case) + _review_encryption(case)
    for disk in case.domain.disks:
        refusals += _review_disk(case, disk)
    for use in uses(case.domain):
        refusals += _review_use(case, use)
    return refusals or _review_twice(case)


def _review_encryption(case: Case) -> list[Refusal]:
    """Nothing opens a container yet: what the policy asks for must not seem to be done."""
    if case.rules.encryption == "optional" and not case.rules.disks:
        return []
    return [
        case.refusal(
            "the policy asks for encrypted disks, which this version cannot open yet",
            where=case.rules.where("storage.encryption"),
            fix='encryption = "optional", and no [domain.disks], for this domain',
        )
    ]


def _review_shared_directories(case: Case) -> list[Refusal]:
    if case.rules.shared_directories == "allow":
        return []
    return [
        case.refusal(
            f"it shares the host's directory {filesystem.directory or '(unnamed)'} with its guest",
            where=case.rules.where("storage.shared_directories"),
            fix='take its <filesystem> out, or set shared_directories = "allow" for this domain',
        )
        for filesystem in case.domain.filesystems
    ]


def _review_disk(case: Case, disk: Disk) -> list[Refusal]:
    """What must be so in the XML before any of its files are looked at."""
    where = f"disk {disk.target}"
    if not disk.has_source:
        return []
    kinds = [disk.kind, *(layer.kind for layer in disk.layers)]
    unknown = [_unknown_kind(case, kind, where) for kind in kinds if not _is_known(case, kind)]
    if unknown:
        return unknown
    if not disk.is_spelled_out:
        return [
            case.refusal(
                "its XML does not say on which images it is based, so libvirt would believe what"
                " a guest may have written into the image",
                where=where,
                fix=case.enrol,
            )
        ]
    if case.domain.has_former_chain(disk):
        return [
            case.refusal(
                f"it has another image ({disk.path}) since it was enrolled, and its XML still says"
                " what the former one was based on",
                where=where,
                fix=case.enrol,
            )
        ]
    taken = [layer.path for layer in disk.layers if layer.path and not layer.relabel_off]
    if (disk.readonly or disk.shareable) and disk.path and not disk.relabel_off:
        taken.append(disk.path)
    return [
        case.refusal(
            f"libvirt would give {path}, which others use too, to this domain's user",
            where=where,
            fix=case.enrol,
        )
        for path in taken
    ]


def _is_known(case: Case, kind: str) -> bool:
    if kind in _NAMED_ELSEWHERE:
        return False
    return kind in (*FILE_KINDS, "network") or "host-devices" in case.rules.exceptions


def _unknown_kind(case: Case, kind: str, where: str) -> Refusal:
    return case.refusal(
        f"it is of type {kind}, whose files virt-warden cannot know",
        where=where,
        fix="name the file itself (virsh vol-path VOLUME --pool POOL), as type 'file'"
        if kind in _NAMED_ELSEWHERE
        else 'make it a file or a block device, or exceptions = ["host-devices"] for this domain',
    )


def _review_twice(case: Case) -> list[Refusal]:
    """One file under two names, or in two places, would be given away by the one and kept from
    the domain's user by the other."""
    refusals = []
    first: dict[tuple[int, int], Use] = {}
    for use in uses(case.domain):
        leaf = case.facts.look(use.path).leaf
        if leaf is None:
            continue
        other = first.setdefault(_file(leaf), use)
        if other is not use and (use.write or other.write or use.shared != other.shared):
            refusals.append(
                case.refusal(
                    f"it is the same file as {other.what} ({other.path})",
                    where=f"{use.what} ({use.path})",
                    fix=f"take one of them out: virsh edit {shown(case.domain.name)}",
                )
            )
    return refusals


def _file(inode: Inode) -> tuple[int, int]:
    """What tells a file from all others; one device may have many nodes."""
    return (inode.rdev, 0) if stat.S_ISBLK(inode.mode) else inode.identity


def _review_use(case: Case, use: Use) -> list[Refusal]:
    where = f"{use.what} ({use.path})"
    edit = f"virsh edit {shown(case.domain.name)}"
    try:
        found = case.facts.look(use.path)
    except HostError as error:
        return [case.refusal(error.what, where=where, fix=error.fix or edit)]
    hosts = part_of_the_host(use.path, case.paths, write=use.write)
    if hosts:
        return [
            case.refusal(
                f"what is in {hosts} is the host's own",
                where=where,
                fix=f"copy or move it to /var/lib/libvirt/images, then: {edit}",
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
                f"it could be swapped: {enemy}",
                where=where,
                fix="move it into a directory that root owns, such as /var/lib/libvirt/images",
            )
        ]
    if found.leaf is None:
        if not use.must_exist:
            return []
        return [case.refusal("it is not there", where=where, fix=f"make it, or {edit}")]
    return _review_inode(case, use, found.leaf, where)


def _review_inode(case: Case, use: Use, inode: Inode, where: str) -> list[Refusal]:
    if not (stat.S_ISREG(inode.mode) or stat.S_ISBLK(inode.mode)):
        return [
            case.refusal(
                "it is neither a regular file nor a block device",
                where=where,
                fix=f"virsh edit {shown(case.domain.name)}",
            )
        ]
    if stat.S_ISREG(inode.mode) and inode.links > 1:
        return [
            case.refusal(
                f"it has {inode.links} names: who holds another one holds the same file",
                where=where,
                fix=f"find the others (find -xdev -samefile {use.path}) and remove them, or give"
                " this domain a copy of its own",
            )
        ]
    claim = _claim(case, use, inode)
    refusal = conflict(claim, case.facts.claims_on(claim.device, claim.number))
    if refusal is not None:
        return [case.refusal(refusal.what, where=where, fix=refusal.fix)]
    lowest, highest = case.rules.uid_range
    own = case.account.uid if case.account else -1
    if lowest <= inode.uid <= highest and inode.uid != own:
        return [
            case.refusal(
                f"it belongs to another VM's user (uid {inode.uid})",
                where=where,
                fix=f"virt-warden recover; if it still does: chown root: {use.path}",
            )
        ]
    return []


def _claim(case: Case, use: Use, inode: Inode) -> Claim:
    device, number = _file(inode)
    return Claim(
        path=use.path,
        device=device,
        number=number,
        domain=case.domain.uuid,
        name=case.domain.name,
        write=use.write,
        shareable=use.shareable,
    )


def plan(case: Case) -> list[Change]:
    """See Guard."""
    changes: list[Change] = []
    if case.op is Op.PREPARE:
        for use in uses(case.domain):
            changes += _prepare(case, use)
    if case.op is Op.STARTED:
        for use in uses(case.domain):
            leaf = case.facts.look(use.path).leaf
            if use.taken_by_libvirt and leaf is not None:
                changes.append(TakeBack(use.path, leaf.device, leaf.number))
    return changes


def _prepare(case: Case, use: Use) -> list[Change]:
    found = case.facts.look(use.path)
    changes: list[Change] = [*search_grants(found.directories, case.user)]
    if found.leaf is None:
        return changes
    file = (use.path, found.leaf.device, found.leaf.number)
    changes.append(_claim(case, use, found.leaf))
    if not use.shared:
        return [*changes, SetAccess(*file, case.user, _PRIVATE_MODE)]
    permissions = _READ | (_WRITE if use.write else 0)
    return [
        *changes,
        LockShared(*file, case.domain.uuid),
        GrantAccess(*file, case.user, permissions),
    ]


def verify(case: Case, process: Process) -> list[str]:
    """See Guard."""
    breaches = []
    for use in uses(case.domain):
        leaf = case.facts.look(use.path).leaf
        if leaf is not None:
            breaches += _verify_inode(case, use, leaf)
    return breaches


def _verify_inode(case: Case, use: Use, inode: Inode) -> list[str]:
    breaches = []
    if inode.mode & stat.S_IRWXO:
        breaches.append(f"{use.path} is open to everyone (mode {inode.permissions:04o})")
    if use.shared:
        lowest, highest = case.rules.uid_range
        if lowest <= inode.uid <= highest:
            breaches.append(f"{use.path}, which VMs share, belongs to a VM's user ({inode.uid})")
        if not use.write and any(lowest <= writer <= highest for writer in inode.writers):
            breaches.append(f"{use.path}, which VMs share, can be written by a VM's user")
    # libvirt gives QEMU a /dev of its own, in which the node is the user's.
    elif stat.S_ISREG(inode.mode):
        own = case.account.uid if case.account else -1
        if inode.uid != own:
            breaches.append(f"{use.path} belongs to uid {inode.uid}, not to {case.user}")
        if inode.mode & _OTHERS:
            breaches.append(f"{use.path} is open to others (mode {inode.permissions:04o})")
    return breaches

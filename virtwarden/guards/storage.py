# SPDX-License-Identifier: GPL-2.0-or-later
"""Guard `storage`: only a VM's own user opens its files, and no VM's user owns a shared file."""

from __future__ import annotations

import stat
from collections.abc import Iterable

from virtwarden.changes import (
    Change,
    ClearWay,
    GrantAccess,
    LockShared,
    Regain,
    RequireUnopened,
    SetAccess,
    TakeBack,
    TakeDirectory,
)
from virtwarden.domain.model import Backing, Disk
from virtwarden.domain.uses import Use
from virtwarden.errors import Refusal
from virtwarden.guards import files
from virtwarden.guards.base import Case, Op
from virtwarden.guards.pathways import (
    libvirts_for_domains,
    libvirts_for_helpers,
    libvirts_own,
    search_grants,
)
from virtwarden.luks.containers import plain_uses
from virtwarden.system.blockstack import identity
from virtwarden.system.files import Inode
from virtwarden.system.process import Process
from virtwarden.words import shown

NAME = "storage"

# Types of a disk that name no file, but a pool's volume, or a whole directory. What leads to
# something else of the host's than a file, the guard host reviews.
_NAMED_ELSEWHERE = ("volume", "dir")
_PRIVATE_MODE = 0o600
_READ, _WRITE = 4, 2
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def review(case: Case) -> list[Refusal]:
    if case.op is not Op.PREPARE:
        return []
    refusals = _review_shared_directories(case)
    for disk in case.domain.disks:
        refusals += _review_disk(case, disk)
    for use in _uses(case):
        refusals += files.review(case, use) or files.review_device(case, use)
    return refusals or _review_bases(case) or _review_twice(case)


def _uses(case: Case) -> list[Use]:
    """The files that this guard answers for; luks and boot have theirs."""
    return [use for use in plain_uses(case.domain, case.rules) if not use.original]


def _review_bases(case: Case) -> list[Refusal]:
    """A base that enrolment wrote came from a header: it is never another domain's own disk."""
    refusals = []
    name = shown(case.domain.name)
    for disk in case.domain.disks:
        for layer in disk.layers:
            if not layer.relabel_off or layer.path not in case.domain.spelled_bases:
                continue
            writer = case.facts.writer_of(layer.path)
            if writer not in ("", case.domain.uuid):
                refusals.append(
                    case.refusal(
                        f"its base {layer.path} is a disk that domain {writer} could write",
                        where=f"disk {disk.target}",
                        fix=f"virt-warden unenrol {name}; virsh edit {name}: after the <source> of"
                        f" {disk.target}, a <backingStore> that names a copy of that base, or the"
                        f" base if you trust it; virt-warden enrol {name}",
                    )
                )
    return refusals


def _review_shared_directories(case: Case) -> list[Refusal]:
    if case.rules.shared_directories == "allow":
        return []
    return [
        case.refusal(
            f"it shares the host's directory {filesystem.directory or '(unnamed)'} with its guest",
            where=case.rules.where("storage.shared_directories"),
            fix="remove its <filesystem>, or"
            f" {case.setting('shared_directories', 'allow', 'storage')}",
        )
        for filesystem in case.domain.filesystems
    ]


def _review_disk(case: Case, disk: Disk) -> list[Refusal]:
    """Review what the XML says of a disk, before its files."""
    where = f"disk {disk.target}"
    if not disk.has_source:
        return []
    kinds = [disk.kind, *(layer.kind for layer in disk.layers)]
    elsewhere = [_unnamed(case, kind, where) for kind in kinds if kind in _NAMED_ELSEWHERE]
    if elsewhere:
        return elsewhere
    if not disk.is_spelled_out:
        return [
            case.refusal(
                "its XML does not name its base images, so libvirt would trust the image's header,"
                " which the guest can write",
                where=where,
                fix=_spelling(case, disk),
            )
        ]
    if case.domain.has_former_chain(disk):
        return [
            case.refusal(
                f"its image was replaced ({disk.path}) since it was enrolled, but its XML still"
                " names the base images of the former one",
                where=where,
                fix=case.enrol,
            )
        ]
    taken = [
        layer.path
        for layer in disk.layers
        if layer.path and not layer.relabel_off and not _was_its_disk(case, layer)
    ]
    if (disk.readonly or disk.shareable) and disk.path and not disk.relabel_off:
        taken.append(disk.path)
    return [
        case.refusal(
            f"libvirt would give the shared file {path} to this domain's user",
            where=where,
            fix=case.enrol,
        )
        for path in taken
    ]


def _was_its_disk(case: Case, layer: Backing) -> bool:
    """Whether this domain could write an image before it got an overlay, as in a snapshot.

    It is its disk no longer once another domain names it, such as a copy's base.
    """
    if case.facts.writer_of(layer.path) != case.domain.uuid:
        return False
    return not case.facts.other_user_of(layer.path, case.domain.uuid)


def _spelling(case: Case, disk: Disk) -> str:
    """How to name a disk's base images: enrolment reads only images that are files of this host."""
    layers: list[Disk | Backing] = [disk, *disk.layers]
    if layers[-1].path:
        return case.enrol
    return (
        f"{case.edit}: after the last <source> of {disk.target},"
        " <backingStore/> if that image has no base, or else a <backingStore> that names it"
        " (qemu-img info, with the image's URL, tells)"
    )


def _unnamed(case: Case, kind: str, where: str) -> Refusal:
    return case.refusal(
        f"it is of type {kind}, so virt-warden does not know its files",
        where=where,
        fix="name the file itself (virsh vol-path VOLUME --pool POOL), as type 'file'",
    )


def _review_twice(case: Case) -> list[Refusal]:
    """One file under two names, or in two places, would be given away by the one and kept from
    the domain's user by the other."""
    refusals = []
    first: dict[tuple[int, int], Use] = {}
    for use in _uses(case):
        leaf = case.facts.look(use.path).leaf
        if leaf is None:
            continue
        other = first.setdefault(identity(leaf), use)
        if other is not use and (use.write or other.write or use.shared != other.shared):
            refusals.append(
                case.refusal(
                    f"it is the same file as {other.what} ({other.path})",
                    where=f"{use.what} ({use.path})",
                    fix=f"remove one of them: {case.edit}",
                )
            )
    return refusals


def plan(case: Case) -> list[Change]:
    changes: list[Change] = []
    if case.op in (Op.PREPARE, Op.STARTED):
        changes += _take_directories(case)
    if case.op in (Op.PREPARE, Op.START, Op.STARTED):
        # libvirt gives the TPMs' to its user again before each start of a VM that has one.
        changes += _take_helpers_directories(case)
    if case.op is Op.PREPARE:
        changes += _clear_way(case)
        changes += _unopened_last(change for use in _uses(case) for change in _prepare(case, use))
    if case.op is Op.ADOPT:
        changes += _unopened_last(change for use in _uses(case) for change in _regain(case, use))
    if case.op is Op.STARTED:
        for use in _uses(case):
            leaf = case.facts.look(use.path).leaf
            if use.taken_by_libvirt and leaf is not None:
                changes.append(TakeBack(use.path, leaf.device, leaf.number))
    return changes


def _take_directories(case: Case) -> list[Change]:
    """libvirt makes, reads and gives away files there: no other user may swap them."""
    awaited = case.domain.id if case.op is Op.PREPARE else ""
    places = dict.fromkeys(libvirts_own(case.paths), "")
    places |= dict.fromkeys(libvirts_for_domains(case.paths), awaited)
    found = [(case.facts.look(path).leaf, number) for path, number in places.items()]
    return [
        TakeDirectory(leaf.path, leaf.device, leaf.number, number)
        for leaf, number in found
        if leaf is not None and _is_others(leaf)
    ]


def _take_helpers_directories(case: Case) -> list[Change]:
    awaited = case.domain.id if case.op is Op.PREPARE else ""
    found = [case.facts.look(path).leaf for path in libvirts_for_helpers(case.paths)]
    return [
        TakeDirectory(leaf.path, leaf.device, leaf.number, awaited, shared=True)
        for leaf in found
        if leaf is not None and _is_others_to_share(leaf)
    ]


def _is_others_to_share(step: Inode) -> bool:
    """Whether another user than root renames things in it that belong to others."""
    is_open = step.uid != 0 or bool(step.mode & stat.S_IWOTH) or not step.mode & stat.S_ISVTX
    return stat.S_ISDIR(step.mode) and is_open


def _is_others(step: Inode) -> bool:
    """Whether it is a directory in which another user than root renames things."""
    is_open = step.uid != 0 or bool(step.mode & (stat.S_IWGRP | stat.S_IWOTH))
    return stat.S_ISDIR(step.mode) and is_open


def _clear_way(case: Case) -> list[Change]:
    own = (str(case.paths.libvirt_state), *libvirts_for_domains(case.paths))
    places = (*own, *libvirts_for_helpers(case.paths))
    return [ClearWay(case.domain.id, places)] if case.facts.left_of(case.domain.id) else []


def _prepare(case: Case, use: Use) -> list[Change]:
    found = case.facts.look(use.path)
    changes: list[Change] = [*search_grants(found.directories, case.user)]
    if found.leaf is None:
        return changes
    file = (use.path, found.leaf.device, found.leaf.number)
    changes.append(files.claim(case, use, found.leaf))
    if not use.shared:
        return [
            *changes,
            SetAccess(*file, case.user, _PRIVATE_MODE),
            # Whoever reads the log of a serial port may go on to do so.
            *_alone(case, file, reading=not use.made_by_root),
        ]
    if files.is_left_alone(case, use, found.leaf):
        return changes
    permissions = _READ | (_WRITE if use.write else 0)
    return [
        *changes,
        LockShared(*file, case.domain.uuid),
        # What several domains write at once, others may write already.
        *([] if use.write else _alone(case, file, reading=False)),
        GrantAccess(*file, case.user, permissions),
    ]


def _regain(case: Case, use: Use) -> list[Change]:
    """Take from libvirt's own user what libvirt has given it."""
    leaf = case.facts.look(use.path).leaf
    if leaf is None or (use.shared and files.is_left_alone(case, use, leaf)):
        return []
    file = (use.path, leaf.device, leaf.number)
    if use.shared and use.write:
        return [Regain(*file, "", writable=True)]
    owner = "" if use.shared else case.user
    return [Regain(*file, owner), *_alone(case, file, reading=not (use.shared or use.made_by_root))]


def _alone(case: Case, file: tuple[str, int, int], *, reading: bool) -> list[Change]:
    """A domain that arrives by a migration still has its files open on the other host, which may
    reach them through this one.
    """
    if case.facts.migration_ports(case.domain.uuid) is not None:
        return []
    return [RequireUnopened(*file, reading)]


def _unopened_last(changes: Iterable[Change]) -> list[Change]:
    """Where they are only logged, the domain needs all the others."""
    return sorted(changes, key=lambda change: isinstance(change, RequireUnopened))


def verify(case: Case, process: Process) -> list[str]:
    breaches = []
    for use in _uses(case):
        found = case.facts.look(use.path)
        if found.symlink:
            breaches.append(
                f"{use.path} is reached by the symlink {found.symlink}: nobody reviewed what"
                f" {found.real} is"
            )
        if found.leaf is not None:
            breaches += _verify_inode(case, use, found.leaf)
    return breaches


def _verify_inode(case: Case, use: Use, inode: Inode) -> list[str]:
    breaches = []
    if inode.mode & stat.S_IRWXO and not (use.shared and files.is_left_alone(case, use, inode)):
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
        if inode.uid != own and not (use.made_by_root and inode.uid == 0):
            breaches.append(f"{use.path} belongs to uid {inode.uid}, not to {case.user}")
        if inode.mode & _OTHERS:
            breaches.append(f"{use.path} is open to others (mode {inode.permissions:04o})")
    return breaches

# SPDX-License-Identifier: GPL-2.0-or-later
"""Guard `boot`: a VM gets a kernel, and what belongs to it, as copies of its own.

What may be secret, a file for fw_cfg, nobody but root reads while a domain that names it runs.

libvirt gives these files to the domain's user at each start, whatever their labels. A process of
that user could keep such a file open and write what the next domain boots.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import replace

from virtwarden.changes import Change, CopyFile, LockShared
from virtwarden.domain.bootfiles import copy_of
from virtwarden.domain.uses import Use, uses
from virtwarden.errors import HostError, Refusal
from virtwarden.guards import files
from virtwarden.guards.base import Case, Op
from virtwarden.guards.pathways import search_grants
from virtwarden.policy import Mode
from virtwarden.system.files import Inode
from virtwarden.system.process import Process

NAME = "boot"


def review(case: Case) -> list[Refusal]:
    if case.op is not Op.PREPARE:
        return []
    refusals = [refusal for use in _copies(case) for refusal in _review(case, use)]
    return refusals + [
        case.refusal(
            "the XML names it itself since an edit, so libvirt would give it to this domain's user",
            where=f"{use.what} ({use.path})",
            fix=case.enrol,
        )
        for use in _edited(case)
    ]


def _edited(case: Case) -> list[Use]:
    """Boot files without a copy in a domain that has some. One that virt-warden 0.1.0 enrolled has
    none, and starts as it did.
    """
    return [use for use in uses(case.domain) if use.taken_by_libvirt and case.domain.copied]


def _copies(case: Case) -> list[Use]:
    return [use for use in uses(case.domain) if use.original]


def _review(case: Case, use: Use) -> list[Refusal]:
    what = f"{use.what} ({use.original})"
    if not _is_ours(case, use):
        amiss = f"its copy {use.path} is not where virt-warden makes one"
        return [case.refusal(amiss, where=what, fix=case.enrol)]
    original = replace(use, path=use.original, original="", must_exist=True, given=False)
    refusals = files.review(case, original)
    leaf = None if refusals else _leaf(case, use.original)
    if leaf is not None and not stat.S_ISREG(leaf.mode):
        return [
            case.refusal(
                "it is not a regular file",
                where=what,
                fix=f"{case.edit}, and name a file",
            )
        ]
    return refusals


def _is_ours(case: Case, use: Use) -> bool:
    return use.path == copy_of(case.paths, case.domain.uuid, use.original)


def _leaf(case: Case, path: str) -> Inode | None:
    try:
        return case.facts.look(path).leaf
    except HostError:
        return None


def plan(case: Case) -> list[Change]:
    if case.op is not Op.PREPARE:
        return []
    return [change for use in _copies(case) for change in _prepare(case, use)]


def _prepare(case: Case, use: Use) -> Iterator[Change]:
    """In permissive mode this is asked despite a refusal."""
    leaf = _leaf(case, use.original) if _is_ours(case, use) else None
    if leaf is not None:
        yield from search_grants(case.facts.look(use.path).directories, case.user)
        yield CopyFile(use.original, leaf.device, leaf.number, use.path, case.user)
        if use.secret and leaf.takes_acls and case.rules.mode is not Mode.DISABLED:
            yield LockShared(use.original, leaf.device, leaf.number, case.domain.uuid)


def verify(case: Case, process: Process) -> list[str]:
    return [breach for use in _copies(case) for breach in _breaches(case, use)]


def _breaches(case: Case, use: Use) -> Iterator[str]:
    own = case.account.uid if case.account else -1
    copy, original = _leaf(case, use.path), _leaf(case, use.original)
    if copy is not None and copy.uid not in (0, own):
        yield f"{use.path} belongs to uid {copy.uid}, not to {case.user}"
    if copy is not None and copy.mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield f"{use.path} is open to others (mode {copy.permissions:04o})"
    if use.secret and original and original.takes_acls and original.mode & stat.S_IRWXO:
        yield f"{use.original} is open to everyone (mode {original.permissions:04o})"

# SPDX-License-Identifier: GPL-2.0-or-later
"""Which files nobody but root and VMs can read while a domain runs: for its admin, to know.

That is no refusal and no breach: a file that several domains use is root's for that time.
"""

from __future__ import annotations

import stat

from virtwarden.changes.shared import before_lock
from virtwarden.domain.uses import Use
from virtwarden.errors import WardenError
from virtwarden.guards.base import Case, Op
from virtwarden.guards.files import is_left_alone
from virtwarden.luks.containers import plain_uses
from virtwarden.system import users
from virtwarden.words import shown

_OTHERS_READ = stat.S_IRGRP | stat.S_IROTH


def withheld(case: Case) -> list[str]:
    """A sentence for each such file: of a running domain as it is, of another as it will be."""
    uses = plain_uses(case.domain, case.rules)
    shared = [use for use in uses if use.shared and not use.original]
    return list(dict.fromkeys(filter(None, (_sentence(case, use) for use in shared))))


def _sentence(case: Case, use: Use) -> str:
    try:
        leaf = case.facts.look(use.path).leaf
    except WardenError:
        return ""
    if leaf is None or not stat.S_ISREG(leaf.mode) or is_left_alone(case, use, leaf):
        return ""
    locked = before_lock(case.paths, use.path, leaf.device, leaf.number)
    uid, mode = locked or (leaf.uid, leaf.mode)
    if uid == 0 and not mode & _OTHERS_READ:
        return ""
    when = "until the last of them stops" if case.op is Op.STARTED else "while one of them runs"
    owner = f", not by {users.name_of(uid)}, its owner" if uid else ""
    return (
        f"{use.path} can be read only by root and the VMs that use it {when}{owner}; to let"
        f" somebody else read it then: setfacl -m u:USER:r {shown(use.path)}"
    )

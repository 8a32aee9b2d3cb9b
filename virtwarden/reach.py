"""What a user needs to reach a file, and who could swap the file on the way there."""

from __future__ import annotations

import stat
from collections.abc import Iterable

from virtwarden.changes import GrantAccess
from virtwarden.system.files import Inode

_SEARCH = 1


def search_grants(directories: Iterable[Inode], user: str) -> list[GrantAccess]:
    """Search permission for a user on those directories that do not give it to everyone."""
    return [
        GrantAccess(step.path, step.device, step.number, user, _SEARCH)
        for step in directories
        if not step.mode & stat.S_IXOTH
    ]


def swapper(
    directories: Iterable[Inode], uid_range: tuple[int, int], vm_groups: frozenset[int]
) -> str:
    """Who, among those who are not trusted, can rename a step of a path, or an empty string.

    VMs' users are not trusted, nor is everyone; the sticky bit does not help, since the VM's own
    user will own the file.
    """
    lowest, highest = uid_range

    def is_vm(number: int) -> bool:
        return lowest <= number <= highest

    for step in directories:
        if is_vm(step.uid):
            return f"{step.path} belongs to a VM's user (uid {step.uid})"
        if step.mode & stat.S_IWOTH:
            return f"{step.path} can be written by everyone"
        if step.mode & stat.S_IWGRP and (is_vm(step.gid) or step.gid in vm_groups):
            return f"{step.path} can be written by VMs' users, through group {step.gid}"
        if any(is_vm(writer) or writer in vm_groups for writer in step.writers):
            return f"{step.path} can be written by a VM's user, through its ACL"
    return ""

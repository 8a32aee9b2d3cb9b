# SPDX-License-Identifier: GPL-2.0-or-later
"""What a user needs to reach a file, and who could swap the file on the way there."""

from __future__ import annotations

import stat
from collections.abc import Iterable

from virtwarden.changes import GrantAccess
from virtwarden.paths import Paths
from virtwarden.system.files import Inode

_SEARCH = 1
# Directories of the host itself, which trusts or executes what is in them.
_SYSTEM = (
    *("/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/run", "/sbin"),
    *("/sys", "/usr", "/var/lib/dpkg", "/var/lib/libvirt/swtpm", "/var/lib/systemd", "/var/spool"),
)
# Installers, kernels and boot ROMs that distributions ship for guests.
_FOR_GUESTS = ("/boot", "/usr/lib/debian-installer", "/usr/lib/ipxe", "/usr/share")
# Whose numbers these are says Debian Policy, 9.2.2; beyond come those of directory services.
_PEOPLE = (range(1000, 60000), range(65536, 2**32 - 1))
# systemd gives services uids between 61184 and 65519; https://systemd.io/UIDS-GIDS
_SYSTEM_USERS = (range(1, 1000), range(60000, 65536))


def search_grants(directories: Iterable[Inode], user: str) -> list[GrantAccess]:
    """ACL entries to enter those directories that not everybody may enter."""
    return [
        GrantAccess(step.path, step.device, step.number, user, _SEARCH)
        for step in directories
        if not step.mode & stat.S_IXOTH
    ]


def part_of_the_host(path: str, paths: Paths, *, write: bool) -> str:
    """The directory of the host's own that a path is in; an empty string if it is in none."""

    def lies_in(directories: Iterable[str]) -> str:
        return next((d for d in directories if path == d or path.startswith(f"{d}/")), "")

    state = str(paths.libvirt_state)
    if lies_in([f"{state}/nvram"]) or (not write and lies_in(_FOR_GUESTS)):
        return ""
    return lies_in([*_SYSTEM, state, str(paths.state), str(paths.run)])


def swapper(
    directories: Iterable[Inode], uid_range: tuple[int, int], vm_groups: frozenset[int]
) -> str:
    """An untrusted user who can rename a step of a path, in words; an empty string if nobody can.

    VMs' users are not trusted, and neither is "everybody". The sticky bit does not help, because
    the VM's user will own the file.
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


def service_swapper(directories: Iterable[Inode], service_groups: frozenset[int]) -> str:
    """A system user who can rename a step of a path, in words; an empty string if none can.

    A system user is a service that somebody on the network may have taken over, such as www-data,
    or QEMU without virt-warden: libvirt-qemu. `service_groups` are the groups of such users: a
    group that has only people in it is not among them.
    """

    def is_service(number: int) -> bool:
        return any(number in users for users in _SYSTEM_USERS)

    def is_its_group(number: int) -> bool:
        return number in service_groups or (number >= 1000 and is_service(number))

    for step in directories:
        if is_service(step.uid):
            return f"{step.path} belongs to a system user (uid {step.uid})"
        if step.mode & stat.S_IWGRP and is_its_group(step.gid):
            return f"{step.path} can be written by a system user, through group {step.gid}"
        groups = set(step.writers).difference(step.writing_users)
        if any(map(is_service, step.writing_users)) or any(map(is_its_group, groups)):
            return f"{step.path} can be written by a system user, through its ACL"
    return ""


def libvirts_own(paths: Paths) -> tuple[str, str]:
    """libvirt's own directories on the way to an NVRAM file, which a start gives to root."""
    return str(paths.libvirt_state), f"{paths.libvirt_state}/nvram"


def person_trusted(directories: Iterable[Inode]) -> str:
    """A person who can rename a step of a path, and is trusted not to; or an empty string."""

    def is_person(number: int) -> bool:
        return any(number in people for people in _PEOPLE)

    for step in directories:
        if is_person(step.uid):
            return f"{step.path} belongs to uid {step.uid}"
        if step.mode & stat.S_IWGRP and is_person(step.gid):
            return f"{step.path} can be written by gid {step.gid}"
        for writer in filter(is_person, step.writers):
            return f"{step.path} can be written by id {writer}, through its ACL"
    return ""

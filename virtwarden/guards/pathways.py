# SPDX-License-Identifier: GPL-2.0-or-later
"""What a user needs to reach a file, and who could swap the file on the way there."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from virtwarden.changes import GrantAccess
from virtwarden.paths import Paths
from virtwarden.system.files import Inode
from virtwarden.words import shown

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


class _By(Enum):
    """By what somebody may rename what is in a directory."""

    OWNER = "owner"
    EVERYONE = "everyone"
    GROUP = "group"
    USER_ENTRY = "user entry"
    GROUP_ENTRY = "group entry"


def _writers(directories: Iterable[Inode]) -> Iterator[tuple[str, _By, int]]:
    """Who may rename the steps of a path: each step, by what, and the uid or gid."""
    for step in directories:
        yield step.path, _By.OWNER, step.uid
        if step.mode & stat.S_IWOTH:
            yield step.path, _By.EVERYONE, -1
        if step.mode & stat.S_IWGRP:
            yield step.path, _By.GROUP, step.gid
        for writer in step.writers:
            is_user = writer in step.writing_users
            yield step.path, _By.USER_ENTRY if is_user else _By.GROUP_ENTRY, writer


def swapper(
    directories: Iterable[Inode], uid_range: tuple[int, int], vm_groups: frozenset[int]
) -> str:
    """An untrusted user who can rename a step of a path, in words; an empty string if nobody can.

    VMs' users are not trusted, and neither is "everybody". The sticky bit does not help, because
    the VM's user will own the file.
    """
    lowest, highest = uid_range
    for path, by, number in _writers(directories):
        if by is _By.EVERYONE:
            return f"{path} can be written by everyone"
        if lowest <= number <= highest or (by is not _By.OWNER and number in vm_groups):
            return path + {
                _By.OWNER: f" belongs to a VM's user (uid {number})",
                _By.GROUP: f" can be written by VMs' users, through group {number}",
            }.get(by, " can be written by a VM's user, through its ACL")
    return ""


@dataclass(frozen=True)
class Swapper:
    """Somebody who can rename a step of a path, in words, and the command that prevents it."""

    what: str
    fix: str


def service_swapper(directories: Iterable[Inode], service_groups: frozenset[int]) -> Swapper | None:
    """A system user who can rename a step of a path; None if none can.

    A system user is a service that somebody on the network may have taken over, such as www-data,
    or QEMU without virt-warden: libvirt-qemu. `service_groups` are the groups of such users: a
    group that has only people in it is not among them.
    """

    def is_service(number: int) -> bool:
        return any(number in users for users in _SYSTEM_USERS)

    def is_its_group(number: int) -> bool:
        return number in service_groups or (number >= 1000 and is_service(number))

    for path, by, number in _writers(directories):
        of_users = by in (_By.OWNER, _By.USER_ENTRY)
        if is_service(number) if of_users else is_its_group(number):
            through = f"{path} can be written by a system user, through"
            place = shown(path)
            return {
                _By.OWNER: Swapper(
                    f"{path} belongs to a system user (uid {number})", f"chown root {place}"
                ),
                _By.GROUP: Swapper(f"{through} group {number}", f"chmod g-w {place}"),
                _By.USER_ENTRY: Swapper(f"{through} its ACL", f"setfacl -x u:{number} {place}"),
                _By.GROUP_ENTRY: Swapper(f"{through} its ACL", f"setfacl -x g:{number} {place}"),
            }[by]
    return None


def libvirts_own(paths: Paths) -> tuple[str, ...]:
    """libvirt's own directories, which a start gives to root: root alone makes what is in them.

    libvirtd follows names in them, and believes what it finds: the XML in a managed save or a
    snapshot's metadata, or what a capabilities file says of QEMU.
    """
    below = ("nvram", "save", "snapshot", "checkpoint", "dump")
    state, cache = paths.libvirt_state, paths.libvirt_cache
    places = (state, *(state / name for name in below), cache, cache / "capabilities")
    # In libvirt 11 the last is its user's too.
    return tuple(map(str, (*places, paths.libvirt_run)))


def libvirts_for_domains(paths: Paths) -> tuple[str, ...]:
    """libvirt's own directories in which it makes one for a domain, and gives that to its user.

    libvirt 9 has the sockets of channels in the second, libvirt 11 in the last.
    """
    state = paths.libvirt_state
    return (
        f"{state}/channel",
        f"{state}/channel/target",
        f"{state}/ram",
        f"{paths.libvirt_run}/channel",
    )


def libvirts_for_helpers(paths: Paths) -> dict[str, int]:
    """libvirt's own directories with the sockets of all VMs' helper programs, and their modes.

    The helpers make them: as their VM's user or, where that is not its own, as libvirt's; swtpm as
    a user of its own.
    """
    modes = {"dbus": 0o770, "passt": 0o755, "rdp": 0o755, "slirp": 0o755, "swtpm": 0o770}
    return {f"{paths.libvirt_run}/{name}": mode for name, mode in modes.items()}


def person_trusted(directories: Iterable[Inode]) -> str:
    """A person who can rename a step of a path, and is trusted not to; or an empty string."""
    for path, by, number in _writers(directories):
        if any(number in people for people in _PEOPLE):
            return path + {
                _By.OWNER: f" belongs to uid {number}",
                _By.GROUP: f" can be written by gid {number}",
            }.get(by, f" can be written by id {number}, through its ACL")
    return ""

# SPDX-License-Identifier: GPL-2.0-or-later
"""The host files that a domain names, and what it does with each."""

from __future__ import annotations

from dataclasses import dataclass, replace

from virtwarden.domain.hostneeds import allowed_paths
from virtwarden.domain.model import Disk, Domain
from virtwarden.policy import Rules

FILE_KINDS = ("file", "block")
"""The types of a `<disk>` that are one file or block device of the host."""


@dataclass(frozen=True)
class Use:
    """One host file of a domain; `what` is the word for it in messages.

    `shared`: several domains may use it at once, so no domain's user may own it.
    `taken_by_libvirt`: libvirt still gives it to the domain's user at each start.
    `must_exist`: nobody makes it on the way to the start.
    `given`: the domain's own user may own it; otherwise no VM's user may.
    `made_by_root`: libvirt makes it where it is missing, and QEMU gets it open: root may own it.
    `overlaid`: another image lies on it, and QEMU writes it only in a block job.
    `original`: it is this domain's own copy of that file, made at each start.
    `secret`: what is in it may be a secret of the domains that name it, such as a password.
    """

    what: str
    path: str
    write: bool
    shared: bool = False
    shareable: bool = False
    taken_by_libvirt: bool = False
    must_exist: bool = True
    given: bool = True
    made_by_root: bool = False
    overlaid: bool = False
    original: str = ""
    secret: bool = False


def uses(domain: Domain) -> tuple[Use, ...]:
    """Every file or block device that the domain uses, each use once, disks first.

    Leaves out what everyone on the host may read (`Domain.common_files`), and network volumes,
    which are no files of this host.
    """
    found: list[Use] = []
    for disk in domain.disks:
        found += _of_disk(disk)
    if domain.nvram:
        found.append(Use("the NVRAM file", domain.nvram, write=True, must_exist=False))
    found += [_of_boot(domain, "the boot file", path) for path in domain.boot_files]
    for path in domain.fw_cfg_files:
        found.append(replace(_of_boot(domain, "the fw_cfg file", path), secret=True))
    for memory in domain.memory_files:
        found.append(Use("the memory's file", memory.path, write=not memory.readonly))
    for path in domain.character_files:
        what = "the log of a serial port"
        found.append(Use(what, path, write=True, must_exist=False, made_by_root=True))
    return tuple({replace(use, what=""): use for use in reversed(found)}.values())[::-1]


def reviewed_paths(domain: Domain, rules: Rules) -> frozenset[str]:
    """Every path of the host that this domain may name, under these rules."""
    paths = {use.path for use in uses(domain)} | {*domain.common_files}
    if rules.shared_directories == "allow":
        paths |= {filesystem.directory for filesystem in domain.filesystems}
    if rules.untapped == "allow":
        paths |= {nic.endpoint for nic in domain.nics}
    paths |= allowed_paths(domain, rules)
    return frozenset(paths - {""})


def granted_paths(domain: Domain, rules: Rules) -> frozenset[str]:
    """The reviewed paths that are absolute; the storage guard refuses the others."""
    return frozenset(path for path in reviewed_paths(domain, rules) if path.startswith("/"))


def _of_boot(domain: Domain, what: str, path: str) -> Use:
    for copied in domain.copied:
        if copied.path == path:
            return Use(what, path, write=False, must_exist=False, original=copied.original)
    return Use(what, path, write=False, shared=True, taken_by_libvirt=True)


def _of_disk(disk: Disk) -> list[Use]:
    found = []
    if disk.kind in FILE_KINDS and disk.path:
        found.append(
            Use(
                f"disk {disk.target}",
                disk.path,
                write=not disk.readonly,
                shared=disk.readonly or disk.shareable,
                shareable=disk.shareable,
                must_exist=not disk.may_be_missing,
            )
        )
    for layer in disk.layers:
        if layer.kind in FILE_KINDS and layer.path:
            what = f"base of disk {disk.target}"
            # A layer that libvirt labels was the disk itself until it got an overlay, and
            # `virsh blockcommit` has QEMU write it again.
            own = not layer.relabel_off
            found.append(Use(what, layer.path, write=own, shared=not own, overlaid=True))
    return found

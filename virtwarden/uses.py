"""The host files that a domain names, and what it does with each."""

from __future__ import annotations

from dataclasses import dataclass

from virtwarden.domain import Disk, Domain

_FILE_KINDS = ("file", "block")


@dataclass(frozen=True)
class Use:
    """One host file of a domain; `what` is the word for it in messages.

    `shared`: several domains may use it at once, so that no domain's user may own it.
    `taken_by_libvirt`: libvirt gives it to the domain's user at each start all the same.
    `must_exist`: nobody makes it on the way to the start.
    """

    what: str
    path: str
    write: bool
    shared: bool = False
    shareable: bool = False
    taken_by_libvirt: bool = False
    must_exist: bool = True


def uses(domain: Domain) -> tuple[Use, ...]:
    """Every file or block device that the domain names, each once, disks first.

    What is not here: the firmware, which is the distribution's and only read, and network
    volumes, which are no file of this host.
    """
    found: list[Use] = []
    for disk in domain.disks:
        found += _of_disk(disk)
    if domain.nvram:
        found.append(Use("the NVRAM file", domain.nvram, write=True, must_exist=False))
    for path in domain.boot_files:
        found.append(Use("the boot file", path, write=False, shared=True, taken_by_libvirt=True))
    for path in domain.character_files:
        found.append(Use("the log of a serial port", path, write=True, must_exist=False))
    return tuple({use.path: use for use in reversed(found)}.values())[::-1]


def _of_disk(disk: Disk) -> list[Use]:
    found = []
    if disk.kind in _FILE_KINDS and disk.path:
        found.append(
            Use(
                f"disk {disk.target}",
                disk.path,
                write=not disk.readonly,
                shared=disk.readonly or disk.shareable,
                shareable=disk.shareable,
            )
        )
    for layer in disk.layers:
        if layer.kind in _FILE_KINDS and layer.path:
            found.append(Use(f"base of disk {disk.target}", layer.path, write=False, shared=True))
    return found

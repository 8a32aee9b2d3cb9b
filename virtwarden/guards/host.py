# SPDX-License-Identifier: GPL-2.0-or-later
"""Guard `host`: a VM reaches no device, file or socket of the host that no other guard reviews.

libvirt gives everything that the XML names to the domain's user, opens some of it as root, and
executes programs that it names. This guard refuses all that is not known to be harmless and that no
other guard reviews.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from dataclasses import replace

from virtwarden.changes import Change, GiveAllowed
from virtwarden.domain.hostneeds import Need, allowed_paths, needs
from virtwarden.domain.uses import reviewed_paths
from virtwarden.errors import HostError, Refusal
from virtwarden.guards.base import Case, Op
from virtwarden.guards.pathways import service_swapper, swapper
from virtwarden.policy.allowances import BROAD_EXCEPTION, is_well_formed, wrong_with
from virtwarden.system.files import Inode
from virtwarden.system.process import Process
from virtwarden.words import toml

NAME = "host"

_HARMLESS_PATHS = frozenset(
    {
        *("/dev/net/tun", "/dev/random", "/dev/urandom", "/dev/vhost-net"),
        *("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"),
    }
)
# What libvirt makes for this domain alone: sockets below its own directories, in one that bears
# the domain's id.
_LIBVIRTS_OWN = r"/(?:var/lib|run)/libvirt/qemu/(?:[a-z]+/){0,2}(?:domain-)?ID-[^/]*(?:/[^/]+)*"
_PSEUDO_TERMINAL = r"/dev/pts/\d+"
_HARDWARE_GENERATOR = "/dev/hwrng"


def review(case: Case) -> list[Refusal]:
    refusals = [refusal for path in case.domain.common_files for refusal in _common(case, path)]
    missing = _missing(case)
    return [*refusals, _refusal(case, missing)] if missing else refusals


def line_of(case: Case) -> str:
    """The policy's line that names all that the domain needs of the host; empty for nothing."""
    strict = replace(case.rules, exceptions=case.rules.exceptions - {BROAD_EXCEPTION}, allow=())
    words = [need.word for need in _missing(replace(case, rules=strict))]
    return _line(words) if words else ""


def _missing(case: Case) -> list[Need]:
    """What the domain needs of the host, and neither the policy nor another guard lets through."""
    reviewed = reviewed_paths(case.domain, case.rules) | _others_matter(case) | _HARMLESS_PATHS
    return [
        need
        for need in needs(case.domain)
        if not case.rules.allows(need.kind, *need.names)
        and not (need.may_be_own and (need.path in reviewed or _is_libvirts_own(case, need.path)))
    ]


def _is_libvirts_own(case: Case, path: str) -> bool:
    own = [_PSEUDO_TERMINAL]
    if case.domain.id:
        own.append(_LIBVIRTS_OWN.replace("ID", re.escape(case.domain.id)))
    return ".." not in path.split("/") and any(re.fullmatch(form, path) for form in own)


def _others_matter(case: Case) -> frozenset[str]:
    """Paths that the guards console and storage review, whether or not they refuse them."""
    displays = case.domain.displays
    sockets = [listen.socket for display in displays for listen in display.listens]
    sockets += [display.socket for display in displays]
    return frozenset([*sockets, *(shared.directory for shared in case.domain.filesystems)])


def _refusal(case: Case, missing: list[Need]) -> Refusal:
    """One refusal for all of them: the policy has one line for all of them."""
    what = ", ".join(dict.fromkeys(need.what for need in missing))
    broad = f' and "{BROAD_EXCEPTION}" does not cover' if _has_broad_exception(case) else ""
    return case.refusal(
        f"it has {what}, which no guard protects{broad}",
        where=case.rules.where("allow"),
        fix="; or ".join([*_edits(case, missing), *_lines(case, missing)]),
    )


def _has_broad_exception(case: Case) -> bool:
    return BROAD_EXCEPTION in case.rules.exceptions


def _edits(case: Case, missing: list[Need]) -> Iterator[str]:
    """What to do to the domain."""
    if any(need.path == _HARDWARE_GENERATOR for need in missing):
        yield (
            f"write /dev/urandom for {_HARDWARE_GENERATOR} ({case.edit}): the kernel mixes the"
            " hardware's numbers into it"
        )
    if any(need.path != _HARDWARE_GENERATOR for need in missing):
        yield f"remove {'it' if len(missing) == 1 else 'them'} ({case.edit})"


def _lines(case: Case, missing: list[Need]) -> Iterator[str]:
    """What to write into the policy: the domain's whole line, because the last one wins."""
    words = [*case.rules.allow, *(need.word for need in missing)]
    strange = [need.word for need in missing if not is_well_formed(need.word)]
    if strange:
        yield f"name it in the XML as the policy can: {strange[0]!r}: {wrong_with(strange[0])}"
        return
    yield f"{_line(words)} for it, {case.entry}"


def _line(words: list[str]) -> str:
    return f"allow = {toml([*dict.fromkeys(words)])}"


def _common(case: Case, path: str) -> list[Refusal]:
    """Review a file that everybody may read and that belongs to no domain, such as firmware.

    libvirt makes a copy of an NVRAM template as root, and the guest reads it.
    """
    where = f"the file {path}"
    try:
        named = found = case.facts.look(path)
        if named.symlink:
            found = case.facts.look(named.real)
    except HostError as error:
        return [case.refusal(error.what, where=where, fix=error.fix or case.edit)]
    steps = (*named.directories, *found.directories)
    wrong, fix = _wrong_with_common(case, steps, found.leaf)
    return [case.refusal(wrong, where=where, fix=fix)] if wrong else []


def _wrong_with_common(
    case: Case, directories: tuple[Inode, ...], inode: Inode | None
) -> tuple[str, str]:
    """What is wrong, and the fix; two empty strings where nothing is."""
    edit = case.edit
    if inode is None or not stat.S_ISREG(inode.mode):
        return "it is not there, or not a regular file", edit
    if not inode.mode & stat.S_IROTH:
        return (
            "others cannot read it, so libvirt would change its owner or QEMU could not read it",
            f"chmod o+r {inode.path} if it holds no secret, or {edit}",
        )
    enemy = swapper((*directories, inode), case.rules.uid_range, case.vm_groups)
    service = service_swapper((*directories, inode), case.facts.service_groups())
    enemy = enemy or (service.what if service else "")
    if enemy:
        return (
            f"another user can change it: {enemy}",
            f"name a file that only root can write: {edit}",
        )
    return "", ""


def plan(case: Case) -> list[Change]:
    """What is refused is not there. What is allowed, libvirt gives to the user that it knows."""
    if case.op is not Op.ADOPT:
        return []
    found = [_behind(case, path) for path in sorted({*_given_by_libvirt(case)})]
    return [
        GiveAllowed(leaf.path, leaf.device, leaf.number, case.user)
        for leaf in found
        if leaf is not None and not stat.S_ISDIR(leaf.mode)
    ]


def _behind(case: Case, path: str) -> Inode | None:
    """What libvirt gave away by that name, which may be a symlink of udev's."""
    try:
        found = case.facts.look(path)
        return (case.facts.look(found.real) if found.symlink else found).leaf
    except HostError:
        return None


def _given_by_libvirt(case: Case) -> Iterator[str]:
    """By which names QEMU opens what the domain has of the host."""
    ends = {path: (f"{path}.in", f"{path}.out") for path in case.domain.pipes}
    for path in allowed_paths(case.domain, case.rules):
        yield from (path, *ends.get(path, ()))
    for need in needs(case.domain):
        if need.kind == "usb":
            yield from (f"/dev/bus/usb/{name}" for name in need.names if "/" in name)
        elif need.kind in ("pci", "mdev"):
            yield from filter(None, [case.facts.vfio_group(need.names[0])])
    for each in case.domain.scsi_devices:
        named = case.facts.generic_scsi(each.adapter, each.bus, each.target, each.unit)
        yield from filter(None, [named])


def verify(case: Case, process: Process) -> list[str]:
    """What was plugged in since the start shows here."""
    common = [refusal for path in case.domain.common_files for refusal in _common(case, path)]
    devices = dict.fromkeys(need.what for need in _missing(case))
    return [
        *(refusal.what for refusal in common),
        *(f"it has {what}, which no guard protects" for what in devices),
    ]

# SPDX-License-Identifier: GPL-2.0-or-later
"""Guard `host`: a VM reaches no device, file or socket of the host that no other guard reviews.

libvirt gives everything that the XML names to the domain's user, opens some of it as root, and
executes programs that it names. This guard refuses all that is not known to be harmless and that no
other guard reviews.
"""

from __future__ import annotations

import re
import stat

from virtwarden.changes import Change
from virtwarden.domain.model import Device
from virtwarden.domain.uses import reviewed_paths
from virtwarden.errors import HostError, Refusal
from virtwarden.guards.base import Case
from virtwarden.guards.pathways import service_swapper, swapper
from virtwarden.system.files import Inode
from virtwarden.system.process import Process
from virtwarden.words import shown

NAME = "host"

# Devices that are QEMU's own make-believe, or of which every path is looked at; all others are
# refused, those of which nobody has heard yet as well.
_HARMLESS = (
    *("controller", "crypto", "disk", "filesystem", "graphics", "hub", "interface", "iommu"),
    *("memballoon", "memory", "nvram", "panic", "redirfilter", "sound", "video", "vsock"),
    "watchdog",
)
_ENDS_IN_QEMU = frozenset(
    {"", "file", "null", "pty", "qemu-vdagent", "spiceport", "spicevmc", "stdio", "unix", "vc"}
)
_HARMLESS_VARIANTS = {
    "audio": frozenset({"none", "spice"}),
    "channel": _ENDS_IN_QEMU,
    "console": _ENDS_IN_QEMU,
    "input": frozenset({"keyboard", "mouse", "tablet"}),
    "parallel": _ENDS_IN_QEMU,
    "redirdev": frozenset({"spicevmc"}),
    "rng": frozenset({"builtin", "random"}),
    "serial": _ENDS_IN_QEMU,
    "smartcard": frozenset({"spicevmc"}),
    "tpm": frozenset({"emulator"}),
}
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


def review(case: Case) -> list[Refusal]:
    refusals = [refusal for path in case.domain.common_files for refusal in _common(case, path)]
    if "host-devices" in case.rules.exceptions:
        return refusals
    reviewed = reviewed_paths(case.domain, case.rules) | _others_matter(case) | _HARMLESS_PATHS
    for device in case.domain.devices:
        if not _is_harmless(device):
            refusals.append(_refusal(case, f"it has {_shown(device)}"))
            continue
        refusals += [
            _refusal(case, f"its {_shown(device)} names {path}")
            for path in dict.fromkeys(device.paths)
            if not (path in reviewed or _is_libvirts_own(case, path))
        ]
    refusals += [
        _refusal(case, f"it names {path}")
        for path in case.domain.other_paths
        if path not in reviewed
    ]
    return refusals


def _is_harmless(device: Device) -> bool:
    if device.tag in _HARMLESS:
        return True
    return device.variant in _HARMLESS_VARIANTS.get(device.tag, ()) and not device.connects


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


def _shown(device: Device) -> str:
    kind = f" of type {device.variant}" if device.variant else ""
    return f"<{device.tag}>{kind}"


def _refusal(case: Case, what: str) -> Refusal:
    return case.refusal(
        f"{what}, which no guard protects",
        where=case.rules.where("exceptions"),
        fix=f'remove it ({_edit(case)}), or exceptions = ["host-devices"] for this domain',
    )


def _edit(case: Case) -> str:
    return f"virsh edit {shown(case.domain.name)}"


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
        return [case.refusal(error.what, where=where, fix=error.fix or _edit(case))]
    steps = (*named.directories, *found.directories)
    wrong, fix = _wrong_with_common(case, steps, found.leaf)
    return [case.refusal(wrong, where=where, fix=fix)] if wrong else []


def _wrong_with_common(
    case: Case, directories: tuple[Inode, ...], inode: Inode | None
) -> tuple[str, str]:
    """What is wrong, and the fix; two empty strings where nothing is."""
    edit = _edit(case)
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
    """There is nothing to do: what is refused is not there."""
    return []


def verify(case: Case, process: Process) -> list[str]:
    """What was plugged in since the start shows here."""
    return [refusal.what for refusal in review(case)]

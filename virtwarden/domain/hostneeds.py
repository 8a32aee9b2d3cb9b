# SPDX-License-Identifier: GPL-2.0-or-later
"""What of the host a domain's XML asks for, beyond what is QEMU's own make-believe.

Each need has the words of the policy's `allow` that let it through. Elements and paths of which
nobody has heard yet are needs as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from virtwarden.domain.model import Assigned, Device, Domain, Line
from virtwarden.policy import Rules
from virtwarden.policy.allowances import word

# Devices that are QEMU's own make-believe, or of which every path is looked at.
_HARMLESS = (
    *("controller", "crypto", "filesystem", "graphics", "hub", "interface", "iommu", "memballoon"),
    *("memory", "nvram", "panic", "redirfilter", "sound", "video", "vsock", "watchdog"),
)
_ENDS_IN_QEMU = frozenset(
    {"", "file", "null", "pty", "qemu-vdagent", "spiceport", "spicevmc", "stdio", "unix", "vc"}
)
_IMAGES = frozenset({"", "block", "dir", "file", "network", "volume"})
_HARMLESS_VARIANTS = {
    "audio": frozenset({"none", "spice"}),
    "channel": _ENDS_IN_QEMU,
    "console": _ENDS_IN_QEMU,
    "disk": _IMAGES,
    "input": frozenset({"keyboard", "mouse", "tablet"}),
    "parallel": _ENDS_IN_QEMU,
    "redirdev": frozenset({"spicevmc"}),
    "rng": frozenset({"builtin", "random"}),
    "serial": _ENDS_IN_QEMU,
    "smartcard": frozenset({"spicevmc"}),
    "tpm": frozenset({"emulator"}),
}
# Of these the paths and the lines say all that there is to allow.
_LINES = frozenset({"dev", "pipe", "tcp", "udp", "unix"})
_TOLD_BY_WHAT_THEY_NAME = {
    "channel": _LINES,
    "console": _LINES,
    "disk": frozenset({"vhostuser", "vhostvdpa"}),
    "input": frozenset({"evdev", "passthrough"}),
    "parallel": _LINES,
    "redirdev": _LINES,
    "rng": frozenset({"egd"}),
    "serial": _LINES,
    "smartcard": _LINES,
    "tpm": frozenset({"external", "passthrough"}),
}
# What is below /dev and yet no device of the host's.
_NO_DEVICES = ("/dev/hugepages/", "/dev/mqueue/", "/dev/shm/")  # noqa: S108 - nothing is made there


@dataclass(frozen=True)
class Need:
    """One thing of the host: what names it in the XML, and its names in the words of `allow`.

    `may_be_own`: it is none, where the path is the domain's own or another guard reviews it.
    """

    what: str
    kind: str
    names: tuple[str, ...]
    path: str = ""
    may_be_own: bool = False

    @property
    def word(self) -> str:
        """What allows it."""
        return word(self.kind, self.names[0])


def needs(domain: Domain) -> tuple[Need, ...]:
    """Everything of the host that the XML asks for, each once, in the XML's order."""
    kinds = _kinds_of_paths(domain)
    found = [need for device in domain.devices for need in _of_device(kinds, device)]
    found += [_element("backingStore", kind) for kind in _unknown_bases(domain)]
    found += [_of_path(kinds, path) for path in domain.other_paths]
    return tuple(dict.fromkeys(found))


def allowed_paths(domain: Domain, rules: Rules) -> frozenset[str]:
    """The paths among the needs that the policy allows."""
    return frozenset(
        need.path for need in needs(domain) if need.path and rules.allows(need.kind, *need.names)
    )


def _kinds_of_paths(domain: Domain) -> Mapping[str, str]:
    """The kinds of the paths whose place in the XML tells it; a program is always one."""
    return {
        **dict.fromkeys(domain.unix_sockets, "unix-socket"),
        **dict.fromkeys(domain.vhost_user_sockets, "vhost-user"),
        **dict.fromkeys(domain.programs, "program"),
    }


def _of_device(kinds: Mapping[str, str], device: Device) -> Iterator[Need]:
    yield from (_of_assigned(device, each) for each in device.assigned)
    yield from (_of_line(device, line) for line in device.lines if line.kind in ("tcp", "udp"))
    if device.tag == "shmem":
        path = f"/dev/shm/{device.name}"  # noqa: S108 - QEMU makes it, not we
        yield Need(f"<shmem> {device.name}", "shmem", (device.name,), path)
    elif not (_is_harmless(device) or device.assigned or _tells_all(device)):
        yield _element(device.tag, device.variant)
    # Which libvirt fills in at the start: qemu_domain.c, qemuDomainPrepareShmemChardev.
    usual = f"/var/lib/libvirt/shmem-{device.name}-sock" if device.tag == "shmem" else ""
    if usual in device.paths:
        yield Need(f"<shmem> {device.name}", "shmem", (device.name,), usual)
    names = {usual, *(each.name for each in device.assigned)}
    yield from (_of_path(kinds, path, device) for path in device.paths if path not in names)


def _shown(tag: str, variant: str) -> str:
    return f"<{tag}> of type {variant}" if variant else f"<{tag}>"


def _is_harmless(device: Device) -> bool:
    if device.tag in _HARMLESS:
        return True
    return device.variant in _HARMLESS_VARIANTS.get(device.tag, ()) and not device.connects


def _tells_all(device: Device) -> bool:
    """Whether its paths and lines are all that there is to allow."""
    by_type = device.variant in _TOLD_BY_WHAT_THEY_NAME.get(device.tag, ())
    return (by_type or device.connects) and bool(device.paths or device.lines)


def _unknown_bases(domain: Domain) -> list[str]:
    kinds = {layer.kind for disk in domain.disks for layer in disk.layers}
    return sorted(kinds - _IMAGES - {"nvme"})


def _element(tag: str, variant: str) -> Need:
    return Need(_shown(tag, variant), "element", (f"{tag} {variant}".rstrip(),))


def _of_line(device: Device, line: Line) -> Need:
    host = f"[{line.host}]" if ":" in line.host else line.host or "*"
    name = f"{host}:{line.service}"
    return Need(f"{_shown(device.tag, line.kind)} at {name}", f"serial-{line.kind}", (name,))


def _of_path(kinds: Mapping[str, str], path: str, device: Device | None = None) -> Need:
    tag = device.tag if device else ""
    what = f"{_shown(tag, device.variant)} with {path}" if device else path
    may_be_own = device is None or _is_harmless(device)
    return Need(what, kinds.get(path) or _by_name(path, tag), (path,), path, may_be_own)


def _by_name(path: str, tag: str) -> str:
    if not path.startswith("/dev/") or path.startswith(_NO_DEVICES) or ".." in path.split("/"):
        return "file"
    if tag == "input":
        return "evdev"
    return "render-node" if path.startswith("/dev/dri/") else "device"


def _of_assigned(device: Device, assigned: Assigned) -> Need:
    name_it = _NAMES.get(assigned.kind)
    kind, names = name_it(assigned) if name_it else ("", ())
    if not names:
        return _element(device.tag, assigned.kind)
    return Need(f"{_shown(device.tag, assigned.kind)} ({names[0]})", kind, names)


def _usb(assigned: Assigned) -> tuple[str, tuple[str, ...]]:
    """By its vendor and product, where the XML says them: its place changes."""
    found = []
    if assigned.vendor and assigned.product:
        found.append(_joined("{:04x}:{:04x}", assigned.vendor, assigned.product))
    if assigned.bus and assigned.device:
        found.append(_joined("{:03}/{:03}", assigned.bus, assigned.device))
    return "usb", tuple(filter(None, found))


def _pci(assigned: Assigned) -> tuple[str, tuple[str, ...]]:
    where = (assigned.domain or "0", assigned.bus, assigned.slot, assigned.function)
    name = _joined("{:04x}:{:02x}:{:02x}.{:x}", *where)
    return "pci", (name,) if name else ()


def _mdev(assigned: Assigned) -> tuple[str, tuple[str, ...]]:
    return "mdev", (assigned.uuid.lower(),) if assigned.uuid else ()


def _scsi(assigned: Assigned) -> tuple[str, tuple[str, ...]]:
    """By its name on the network, or as lsscsi(8) says it."""
    if assigned.name:
        return "scsi", (assigned.name,)
    host = assigned.adapter.removeprefix("scsi_host")
    name = _joined("{}:{}:{}:{}", host, assigned.bus, assigned.target, assigned.unit)
    return "scsi", (name,) if name else ()


def _joined(form: str, *numbers: str) -> str:
    """Numbers as libvirt writes them, decimal or hexadecimal; empty where one is none."""
    try:
        return form.format(*(int(n, 16 if n.startswith("0x") else 10) for n in numbers))
    except ValueError:
        return ""


_NAMES: Mapping[str, Callable[[Assigned], tuple[str, tuple[str, ...]]]] = {
    "mdev": _mdev,
    "nvme": _pci,
    "pci": _pci,
    "scsi": _scsi,
    "scsi_host": _scsi,
    "usb": _usb,
}

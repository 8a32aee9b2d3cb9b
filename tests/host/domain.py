# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain's XML, with nothing in it but what the test asks for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

from lxml import etree
from lxml.builder import E  # type: ignore[import-not-found]  # lxml-stubs has no builder

_BUSES = {"vd": "virtio", "sd": "sata", "hd": "ide", "fd": "fdc"}
_SOURCE_ATTRIBUTES = {"file": "file", "block": "dev", "dir": "dir"}


@dataclass(frozen=True)
class Disk:
    """One disk; the bus follows from the target's name.

    One with a `secret`, a UUID, is one that QEMU decrypts.
    """

    path: Path | str
    target: str = "vda"
    format: str = "qcow2"
    readonly: bool = False
    shareable: bool = False
    device: str = "disk"
    kind: str = "file"
    secret: str = ""


@dataclass(frozen=True)
class Nic:
    """One NIC on a bridge; one with two or more queues is one that tap.inject works on.

    libvirt chooses the tap's name where none is given.
    """

    mac: str
    bridge: str
    kind: str = "bridge"
    queues: int | None = None
    model: str = "virtio"
    tap: str | None = None
    filterref: str | None = None


@dataclass(frozen=True)
class Vnc:
    """A VNC console; libvirt chooses the port where none is given."""

    listen: str = "127.0.0.1"
    password: str | None = None
    port: int | None = None


def domain_xml(
    name: str,
    *,
    uuid: str | None = None,
    disks: Iterable[Disk] = (),
    nics: Iterable[Nic] = (),
    vnc: Vnc | None = None,
    kernel: Path | str | None = None,
    initrd: Path | str | None = None,
    memory_mib: int = 64,
    machine: str = "pc",
    emulator: Path | str | None = "/usr/bin/qemu-system-x86_64",
    extra_devices: str = "",
    extra: str = "",
) -> str:
    """Build the XML of an emulated domain with one CPU.

    Without a `uuid` it has one that follows from the name, so that it can be defined anew.
    Without an `emulator` libvirt takes its default. `extra_devices` and `extra` are XML elements,
    put at the end of `<devices>` and `<domain>`.
    """
    devices = E.devices(
        *([E.emulator(str(emulator))] if emulator else []),
        *map(_disk, disks),
        E.controller(type="usb", model="none"),
        *map(_nic, nics),
        *([_graphics(vnc)] if vnc else []),
        E.memballoon(model="none"),
        *_elements(extra_devices),
    )
    domain = E.domain(
        E.name(name),
        E.uuid(uuid or str(uuid5(NAMESPACE_DNS, name))),
        E.memory(str(memory_mib), unit="MiB"),
        E.vcpu("1"),
        E.os(
            E.type("hvm", arch="x86_64", machine=machine),
            *([E.kernel(str(kernel))] if kernel else []),
            *([E.initrd(str(initrd))] if initrd else []),
        ),
        E.features(E.acpi()),
        devices,
        *_elements(extra),
        type="qemu",
    )
    return str(etree.tostring(domain, encoding="unicode", pretty_print=True))


# Any: lxml has no types of its own.
def _disk(disk: Disk) -> Any:
    return E.disk(
        E.driver(name="qemu", type=disk.format),
        E.source(**{_SOURCE_ATTRIBUTES[disk.kind]: str(disk.path)}),
        E.target(dev=disk.target, bus=_BUSES[disk.target[:2]]),
        *([E.readonly()] if disk.readonly else []),
        *([E.shareable()] if disk.shareable else []),
        *([_encryption(disk.secret)] if disk.secret else []),
        type=disk.kind,
        device=disk.device,
    )


def _encryption(secret: str) -> Any:
    return E.encryption(E.secret(type="passphrase", uuid=secret), format="luks")


def _nic(nic: Nic) -> Any:
    return E.interface(
        E.mac(address=nic.mac),
        E.source(**{nic.kind: nic.bridge}),
        E.model(type=nic.model),
        *([E.target(dev=nic.tap)] if nic.tap else []),
        *([E.driver(queues=str(nic.queues))] if nic.queues else []),
        *([E.filterref(filter=nic.filterref)] if nic.filterref else []),
        type=nic.kind,
    )


def _graphics(vnc: Vnc) -> Any:
    port = {"autoport": "yes"} if vnc.port is None else {"autoport": "no", "port": str(vnc.port)}
    password = {} if vnc.password is None else {"passwd": vnc.password}
    return E.graphics(E.listen(type="address", address=vnc.listen), type="vnc", **port, **password)


def _elements(fragment: str) -> list[Any]:
    return list(etree.fromstring(f"<fragment>{fragment}</fragment>"))

# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains' XML for tests, with nothing in it but what the test asks for."""

from __future__ import annotations

from fake_host import IMAGES

UUID = "6f1c1a4e-0000-4000-8000-000000000001"
OTHER = "6f1c1a4e-0000-4000-8000-000000000002"
DISK = f"{IMAGES}/web01.qcow2"
_QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
_WARDEN = "https://virt-warden.org/xmlns/libvirt/domain/1.0"


def label(user: str = "vmw-web01", kind: str = "static", relabel: str = "yes") -> str:
    """The label that an enrolled domain has."""
    return (
        f"<seclabel type='{kind}' model='dac' relabel='{relabel}'>"
        f"<label>{user}:{user}</label></seclabel>"
    )


def domain(
    devices: str = "",
    *,
    name: str = "web01",
    uuid: str = UUID,
    os: str = "",
    labels: str | None = None,
    emulator: str = "/usr/lib/virt-warden/qemu-system-x86_64",
    extra: str = "",
) -> str:
    """An enrolled domain, which runs (it has an id)."""
    return (
        f"<domain type='kvm' id='7' xmlns:qemu='{_QEMU}' xmlns:warden='{_WARDEN}'>"
        f"<name>{name}</name><uuid>{uuid}</uuid>"
        f"<os><type arch='x86_64' machine='q35'>hvm</type>{os}</os>"
        f"<devices><emulator>{emulator}</emulator>{devices}</devices>"
        f"{label() if labels is None else labels}{extra}</domain>"
    )


def disk(
    path: str = DISK,
    *,
    target: str = "vda",
    form: str = "raw",
    kind: str = "file",
    inside: str = "",
    in_source: str = "",
    source: str | None = None,
) -> str:
    """A disk; `in_source` stands inside of its source."""
    attribute = {"file": "file", "block": "dev", "dir": "dir"}.get(kind, "file")
    found = f"{attribute}='{path}'" if source is None else source
    return (
        f"<disk type='{kind}' device='disk'><driver name='qemu' type='{form}'/>"
        f"<source {found}>{in_source}</source><target dev='{target}' bus='virtio'/>{inside}</disk>"
    )


UNLABELLED = "<seclabel model='dac' relabel='no'/>"


def base(path: str, form: str = "qcow2", below: str = "<backingStore/>") -> str:
    """One layer below an image, spelled out as enrolment does."""
    return (
        f"<backingStore type='file'><format type='{form}'/>"
        f"<source file='{path}'>{UNLABELLED}</source>{below}</backingStore>"
    )


def nic(mac: str = "52:54:00:00:00:01", kind: str = "bridge", tap: str = "vnet0") -> str:
    """A NIC, whose tap is there."""
    return (
        f"<interface type='{kind}'><mac address='{mac}'/><source bridge='br0'/>"
        f"<target dev='{tap}'/></interface>"
    )


def vnc(address: str = "127.0.0.1", port: str = "5900") -> str:
    """A VNC console."""
    return (
        f"<graphics type='vnc' port='{port}' listen='{address}'>"
        f"<listen type='address' address='{address}'/></graphics>"
    )

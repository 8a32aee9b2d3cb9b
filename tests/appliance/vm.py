# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain on an appliance: the steps of its life, and what holds of it at each of them."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any

from tests.appliance.machine import Host
from tests.host.command import CommandFailedError
from tests.host.domain import Disk, domain_xml

IMAGES = "/var/lib/libvirt/images"
_ENROLLED_SECONDS = 300
# With nothing on it to boot, the BIOS waits: a guest that costs nothing.
_DISK_SIZE = "64M"


@dataclass(frozen=True)
class Vm:
    """One domain by its name; made by `defined`."""

    host: Host
    name: str

    @property
    def disk(self) -> str:
        """Its first disk's image."""
        return f"{IMAGES}/{self.name}.qcow2"

    def virsh(self, action: str, *words: str, check: bool = True) -> str:
        """Have virsh do something with the domain; what it says."""
        command = shlex.join(["virsh", "-q", action, self.name, *words])
        return self.host.run(command, check=check).stdout.strip()

    def start(self) -> Vm:
        """Start it; raises CommandFailedError with what the admin reads where it is refused."""
        self.virsh("start")
        return self

    def refusal(self) -> str:
        """Start it, which must fail; what the admin reads."""
        try:
            self.virsh("start")
        except CommandFailedError as error:
            return str(error)
        raise AssertionError(f"{self.name} started")

    def pid(self) -> int:
        """Its QEMU."""
        return int(self.host.get(f"/run/libvirt/qemu/{self.name}.pid"))

    def user(self) -> str:
        """Whom its QEMU runs as."""
        return self.host.run(f"ps -o user:64= -p {self.pid()}").stdout.strip()

    def label(self) -> str:
        """How AppArmor or SELinux confines its QEMU."""
        return self.host.get(f"/proc/{self.pid()}/attr/current").decode().strip("\0\n")

    def status(self) -> dict[str, Any]:
        """What virt-warden says of it."""
        command = f"virt-warden status --json {shlex.quote(self.name)}"
        (standing,) = json.loads(self.host.run(command, check=False).stdout)
        return dict(standing)

    def await_enrolment(self) -> None:
        """Wait until the service has seen that the domain is there."""
        notes = f"virsh dumpxml --inactive {shlex.quote(self.name)} | grep -q '<warden:enrolment'"
        self.host.until(notes, seconds=_ENROLLED_SECONDS)

    def owner(self, path: str | None = None) -> str:
        """Whose a file is, by default its first disk's image."""
        return self.host.run(f"stat -c %U {shlex.quote(path or self.disk)}").stdout.strip()

    def is_well(self) -> bool:
        """Assert that it runs as it should on this host: confined, and guarded where we are."""
        assert self.virsh("domstate") == "running"
        assert self.label() == f"libvirt-{self.virsh('domuuid')} (enforce)"
        if self.host.has_warden():
            assert self.status()["breaches"] == []
            assert self.user() == self.status()["user"]
            assert self.owner() == self.user()
        else:
            assert self.user() == "libvirt-qemu"
        assert self.host.denials() == []
        return True


def defined(host: Host, name: str, xml: str | None = None, **parts: Any) -> Vm:
    """Define a domain as its admin would, by its XML or by what `domain_xml` makes it of.

    It has a disk of its own unless either says otherwise. Where virt-warden is, the service has
    enrolled it when this returns.
    """
    vm = Vm(host, name)
    if xml is None and "disks" not in parts:
        host.run(f"qemu-img create -q -f qcow2 {vm.disk} {_DISK_SIZE}")
        parts["disks"] = [Disk(vm.disk)]
    host.define(xml or domain_xml(name, **parts))
    if host.has_warden():
        vm.await_enrolment()
    return vm

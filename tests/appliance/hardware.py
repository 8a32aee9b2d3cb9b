# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine that the appliance boots on: emulated wholly, so that it needs no /dev/kvm."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from tests.appliance.build import Image
from tests.host.command import run

_QEMU = "qemu-system-x86_64"
# Each saves seconds, and none changes what a Debian host does. Without the last, an emulated timer
# that comes late on a busy machine is a panic.
_KERNEL_LINE = (
    "root=/dev/nvme0n1 rw console=ttyS0 loglevel=4 net.ifnames=0 nokaslr mitigations=off"
    " init_on_alloc=0 panic=5 no_timer_check"
)
_LONGEST_FRAME = 65536
_ADDRESS_PREFIX = "52:54:01:00"


class Cable:
    """An Ethernet cable between two machines, or a machine and the test; ends are datagrams."""

    def __init__(self, directory: Path) -> None:
        self._ends = [directory / "a", directory / "b"]
        self._plugged = 0
        self._held: list[CableEnd] = []

    def plug(self) -> tuple[Path, Path]:
        """Take an end; gives its socket and the other end's."""
        here = self._plugged
        self._plugged += 1
        return self._ends[here], self._ends[1 - here]

    def hold(self) -> CableEnd:
        """Take an end for the test itself."""
        end = CableEnd(*self.plug())
        self._held.append(end)
        return end

    def let_go(self) -> None:
        """Close what the test held."""
        for end in self._held:
            end.close()


class CableEnd:
    """The test's end of a cable."""

    def __init__(self, here: Path, there: Path) -> None:
        self._there = there
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(here))

    def receive(self, seconds: float) -> bytes:
        """The next frame; raises TimeoutError when none came for so long."""
        self._socket.settimeout(seconds)
        return self._socket.recv(_LONGEST_FRAME)

    def send(self, frame: bytes) -> None:
        """Send a frame; the machine at the other end must be on."""
        self._socket.sendto(frame, str(self._there))

    def close(self) -> None:
        """Let go of it."""
        self._socket.close()


@dataclass(frozen=True)
class Hardware:
    """What is in the machine besides its system disk; the first `disks` size is /dev/vda's."""

    memory_mib: int = 1536
    disks: Sequence[str] = ()
    cables: Sequence[Cable] = ()


class Machine:
    """A machine's parts in a directory: they outlive its power."""

    def __init__(self, image: Image, hardware: Hardware, directory: Path) -> None:
        self._hardware = hardware
        self._directory = directory
        self._kernel = image.kernel
        self._kernel_line = f"{_KERNEL_LINE} {image.kernel_line}"
        self._uuid = uuid4()
        self.disk = directory / "root.qcow2"
        self.console = directory / "console"
        self.agent_address = directory / "agent"
        backing = ("-b", str(image.disk), "-F", image.disk_format)
        run("qemu-img", "create", "-q", "-f", "qcow2", *backing, str(self.disk))
        self._disks = [directory / f"disk{number}" for number in range(len(hardware.disks))]
        for path, size in zip(self._disks, hardware.disks, strict=True):
            run("qemu-img", "create", "-q", "-f", "qcow2", str(path), size)
        self._ends = [cable.plug() for cable in hardware.cables]

    def power_on(self) -> subprocess.Popen[str]:
        """Start QEMU, its monitor on its standard streams; it ends with the thread that calls."""
        command = ["setpriv", "--pdeathsig", "KILL", "--", _QEMU, *self._arguments()]
        with (self._directory / "qemu.log").open("a") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                # Ctrl-C is for the test, which then ends QEMU itself.
                start_new_session=True,
            )

    def move_disk(self, to: Path) -> None:
        """Keep the system disk, once the machine is off, after the machine is gone."""
        shutil.move(self.disk, to)
        to.chmod(0o444)

    def _arguments(self) -> list[str]:
        return [
            *("-nodefaults", "-no-user-config", "-display", "none", "-qmp", "stdio"),
            *("-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-smp", "2"),
            "-no-reboot",
            *("-m", str(self._hardware.memory_mib)),
            # Two hosts of one UUID would be one host to libvirt, which it will not migrate to.
            *("-uuid", str(self._uuid)),
            *("-kernel", str(self._kernel), "-append", self._kernel_line),
            *("-drive", f"if=none,id=root,file={self.disk},discard=unmap"),
            *("-device", "nvme,drive=root,serial=root"),
            *("-chardev", f"file,id=console,path={self.console},append=on"),
            *("-serial", "chardev:console"),
            *("-chardev", f"socket,id=agent,path={self.agent_address},server=on,wait=off"),
            *("-device", "virtio-serial-pci"),
            *("-device", "virtserialport,chardev=agent,name=warden.agent"),
            *("-device", "virtio-rng-pci"),
            *self._disk_arguments(),
            *self._cable_arguments(),
        ]

    def _disk_arguments(self) -> list[str]:
        words: list[str] = []
        for number, path in enumerate(self._disks):
            words += ["-drive", f"if=none,id=disk{number},file={path},discard=unmap"]
            words += ["-device", f"virtio-blk-pci,drive=disk{number},serial=disk{number}"]
        return words

    def _cable_arguments(self) -> list[str]:
        words: list[str] = []
        for number, (here, there) in enumerate(self._ends):
            ends = f"local.type=unix,local.path={here},remote.type=unix,remote.path={there}"
            words += ["-netdev", f"dgram,id=cable{number},{ends}"]
            mac = f"{_ADDRESS_PREFIX}:{_last_byte(here)}:{number:02x}"
            words += ["-device", f"virtio-net-pci,netdev=cable{number},mac={mac}"]
        return words


def _last_byte(end: Path) -> str:
    return {"a": "0a", "b": "0b"}[end.name]

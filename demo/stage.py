"""The private host of the demo: libvirt, a bridge with somebody on it, and two VMs on one base."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from demo.screen import Screen
from tests.host.command import run
from tests.host.domain import Disk, Nic, Vnc, domain_xml
from tests.host.images import qcow2
from tests.host.install import install
from tests.host.libvirt import Libvirt, libvirtd
from tests.host.network import Sniffer, bridge, neighbour

IMAGES = Path("/var/lib/libvirt/images")
BASE = IMAGES / "base.qcow2"
MACS = {"web01": "52:54:00:00:00:01", "db01": "52:54:00:00:00:02"}


@dataclass(frozen=True)
class Stage:
    """What a scene has to act with."""

    screen: Screen
    libvirt: Libvirt
    neighbour: Sniffer

    def run(self, line: str, *, shown: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command as an admin would type it, and show it with all that it says."""
        done = run(*shlex.split(line), check=False)
        if shown:
            self.screen.command(line)
            self.screen.output(done.stdout + done.stderr)
        return done


@contextmanager
def stage(screen: Screen) -> Iterator[Stage]:
    """Install the checkout, start libvirtd, define the two VMs."""
    install()
    with libvirtd() as libvirt, bridge("br0") as name, neighbour(name) as sniffer:
        define_vms(libvirt, name)
        yield Stage(screen, libvirt, sniffer)


def define_vms(libvirt: Libvirt, bridge_name: str) -> None:
    """Define web01 and db01: a disk each, on one base; a NIC on the bridge; a VNC console."""
    qcow2(BASE, mode=0o644)
    for name, mac in MACS.items():
        disk = Disk(qcow2(IMAGES / f"{name}.qcow2", backing=BASE))
        # Two queues: QEMU holds one, the demo sends out of the other as though it were the guest.
        nic = Nic(mac, bridge_name, queues=2)
        libvirt.define(domain_xml(name, disks=[disk], nics=[nic], vnc=Vnc()))

# SPDX-License-Identifier: GPL-2.0-or-later
"""The private host of the demo: libvirt, a bridge with somebody on it, and two VMs on one base."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from demo.screen import Screen
from tests.host.command import run
from tests.host.domain import Disk, Nic, Vnc, domain_xml
from tests.host.images import qcow2
from tests.host.install import configure, install
from tests.host.libvirt import Libvirt, libvirtd
from tests.host.network import Sniffer, bridge, neighbour
from tests.libvirt.snapshots import LASTING, snapshot

IMAGES = Path("/srv/demo")
CONSOLE_CA = Path("/var/lib/virt-warden/console-ca/ca-cert.pem")
MACS = {"web01": "52:54:00:00:00:01", "db01": "52:54:00:00:00:02"}
_RUN = Path("/run/virt-warden")


def image(name: str) -> Path:
    """The disk of a VM; `base` is the one below both."""
    return IMAGES / f"{name}.qcow2"


def user(name: str) -> str:
    """The user of a VM."""
    return f"vmw-{name}"


@dataclass(frozen=True)
class Stage:
    """What a scene has to act with; `before` is the host as it was before any VM was enrolled."""

    screen: Screen
    libvirt: Libvirt
    bridge: str
    neighbour: Sniffer
    before: dict[str, str]

    def run(self, line: str, *, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command as an admin would type it, and show it with all that it says."""
        done = run(*shlex.split(line), check=False, stdin=stdin)
        self.screen.command(line)
        self.screen.output(done.stdout + done.stderr)
        return done

    def promise(self, text: str, *, kept: bool) -> None:
        """Show whether a promise is kept."""
        self.screen.promise(text, kept=kept)

    def tap(self, name: str) -> str:
        """The host's end of a running VM's cable."""
        return self.libvirt.virsh("domiflist", name).stdout.split()[0]

    def now(self) -> dict[str, str]:
        """The host as it is, in so far as virt-warden could alter it."""
        found = snapshot([IMAGES])
        found["cells"] = " ".join(sorted(str(path) for path in _RUN.rglob("*") if _of_a_run(path)))
        for name in MACS:
            found[f"XML of {name}"] = self.libvirt.xml(name, "--inactive")
        return found


def _of_a_run(path: Path) -> bool:
    """Whether it stands for a running VM: what lasts for a boot and empty directories do not."""
    is_cell = re.fullmatch("[0-9a-f]{8}-[0-9a-f-]{27}", path.name) is not None
    return is_cell or (path.is_file() and not str(path).startswith(LASTING))


@contextmanager
def private_host(*, installed: bool = False) -> Iterator[tuple[Libvirt, str, Sniffer]]:
    """Install the checkout, start libvirtd, put somebody who listens on a bridge.

    With `installed`, the package that the host has takes the checkout's place.
    """
    if installed:
        configure()
    else:
        install()
    with libvirtd() as libvirt, bridge("br0") as bridge_name, neighbour(bridge_name) as sniffer:
        yield libvirt, bridge_name, sniffer


def build(screen: Screen, libvirt: Libvirt, bridge_name: str, sniffer: Sniffer) -> Stage:
    """Define web01 and db01: a disk each, on one base; a NIC on the bridge; a VNC console."""
    IMAGES.mkdir()
    base = qcow2(image("base"), mode=0o644)
    for name, mac in MACS.items():
        disk = Disk(qcow2(image(name), backing=base))
        # Two queues: QEMU holds one, the demo sends out of the other as though it were the guest.
        nic = Nic(mac, bridge_name, queues=2)
        libvirt.define(domain_xml(name, disks=[disk], nics=[nic], vnc=Vnc()))
    stage = Stage(screen, libvirt, bridge_name, sniffer, before={})
    stage.before.update(stage.now())
    return stage


def play(stage: Stage, title: str, scene: Callable[[Stage], None]) -> None:
    """Play one scene; one that comes to a bad end is a broken promise, and the next one follows."""
    stage.screen.title(title)
    try:
        scene(stage)
    except Exception as error:  # noqa: BLE001 - whatever it is, it must be seen and counted
        stage.promise(f"{title} ({type(error).__name__}: {error})", kept=False)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Many VMs started at once: how long until all run, and that none is lost or unguarded.

Each way starts the same number of VMs, one after the other way, several times.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import libvirt

from bench.places import show
from tests.host.command import run
from tests.host.domain import Disk, Nic, Vnc, domain_xml
from tests.host.images import qcow2
from tests.host.install import install
from tests.host.libvirt import Libvirt, libvirtd
from tests.host.network import bridge
from tests.host.service import service
from tests.libvirt.warden import set_policy
from virtwarden.system import users

_IMAGES = Path("/srv/bench")
_HOOK = Path("/etc/libvirt/hooks/qemu")
_URI = "qemu:///system"
_DEFAULT_VMS = 50
_DEFAULT_RUNS = 3


@dataclass
class Way:
    """One way to start the VMs, and the seconds that each run took until all ran."""

    title: str
    prefix: str
    guarded: bool
    first: float = 0
    seconds: list[float] = field(default_factory=list)

    def names(self, vms: int) -> list[str]:
        """The VMs of this way."""
        return [f"{self.prefix}{number}" for number in range(vms)]


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print a line for each way; 1 where a VM did not start or is not guarded."""
    options = _parser().parse_args(arguments)
    ways = [Way("libvirt, no hook", "plain", guarded=False)]
    ways.append(Way("virt-warden, its service", "guarded", guarded=True))
    with _host() as (libvirtd_, bridge_name):
        for way in ways:
            _define(libvirtd_, way, options.vms, bridge_name)
            way.first = _started_at_once(way, options.vms)
            _stop(way.names(options.vms))
        for number in range(options.runs):
            for way in ways if number % 2 else ways[::-1]:
                way.seconds.append(_started_at_once(way, options.vms))
                if way.guarded:
                    run("virt-warden", "status", *way.names(options.vms))
                _stop(way.names(options.vms))
        _check_users(ways[1].names(options.vms))
    _print_table(ways, options.vms)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.many", description=__doc__)
    parser.add_argument("--vms", type=int, default=_DEFAULT_VMS, help="how many at once")
    parser.add_argument("--runs", type=int, default=_DEFAULT_RUNS, help="how often each way")
    return parser


@contextmanager
def _host() -> Iterator[tuple[Libvirt, str]]:
    install()
    set_policy('managed = ["guarded*"]\n')
    _IMAGES.mkdir()
    with libvirtd() as libvirt_, bridge("br0") as bridge_name, service():
        yield libvirt_, bridge_name


def _define(libvirt_: Libvirt, way: Way, vms: int, bridge_name: str) -> None:
    for number, name in enumerate(way.names(vms)):
        disk = Disk(qcow2(_IMAGES / f"{name}.qcow2"))
        nic = Nic(f"52:54:00:0{int(way.guarded)}:00:{number:02x}", bridge_name)
        libvirt_.define(domain_xml(name, disks=[disk], nics=[nic], vnc=Vnc()))
    if way.guarded:
        run("virt-warden", "enrol", "--all")


def _started_at_once(way: Way, vms: int) -> float:
    """Start them all; the seconds until the last one runs."""
    show(_HOOK, in_place=way.guarded)

    def start(connection: libvirt.virConnect, name: str) -> None:
        connection.lookupByName(name).create()

    return _at_once(way.names(vms), start)


def _stop(names: list[str]) -> None:
    def stop(connection: libvirt.virConnect, name: str) -> None:
        connection.lookupByName(name).destroy()

    _at_once(names, stop)


def _at_once(names: list[str], act: Callable[[libvirt.virConnect, str], None]) -> float:
    failures: list[str] = []
    gate = threading.Barrier(len(names) + 1)

    def one(connection: libvirt.virConnect, name: str) -> None:
        gate.wait()
        try:
            act(connection, name)
        except libvirt.libvirtError as error:
            failures.append(f"{name}: {error}")

    connections = [libvirt.open(_URI) for _ in names]
    threads = [
        threading.Thread(target=one, args=pair) for pair in zip(connections, names, strict=True)
    ]
    for thread in threads:
        thread.start()
    gate.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    for connection in connections:
        connection.close()
    if failures:
        raise RuntimeError(f"{len(failures)} of {len(names)} failed, the first: {failures[0]}")
    return seconds


def _check_users(names: list[str]) -> None:
    accounts = [users.account(f"vmw-{name}") for name in names]
    uids = {account.uid for account in accounts if account is not None}
    if len(uids) != len(names):
        raise RuntimeError(f"{len(names)} VMs have {len(uids)} users")


def _print_table(ways: list[Way], vms: int) -> None:
    plain, *_ = ways
    print(
        f"Seconds until {vms} VMs run that were started at once: first run, then the"
        " median of the others.\n"
    )
    for way in ways:
        usual = median(way.seconds)
        ratio = usual / median(plain.seconds)
        print(f"{way.title:<29}{way.first:8.2f}{usual:8.2f} {ratio:4.2f}x")


if __name__ == "__main__":
    sys.exit(main())

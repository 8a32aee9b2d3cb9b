# SPDX-License-Identifier: GPL-2.0-or-later
"""How much of a start's time is ours: `virsh start` and `destroy` of one VM, guarded in six ways.

The last way is a VM that nobody enrolled, and that libvirt forgets when it stops: each of its
starts makes a user too.

The runs are interleaved, so that whatever else the machine does hits all ways alike. Another VM
runs beside, under guard: as on any host but at its first start, what is the host's is set up.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from uuid import NAMESPACE_DNS, uuid5

import libvirt as libvirt_python

from bench.places import show
from tests.host.command import run
from tests.host.domain import Disk, Nic, Vnc, domain_xml
from tests.host.images import qcow2
from tests.host.install import install
from tests.host.libvirt import Libvirt, libvirtd
from tests.host.network import bridge
from tests.host.service import service
from tests.libvirt.warden import set_policy
from virtwarden.enrolment.enrol import enrol_xml
from virtwarden.paths import Paths

_PATHS = Paths()
_IMAGES = Path("/srv/bench")
_KNOWN_UIDS = 80_000
_HOOK = Path("/etc/libvirt/hooks/qemu")
_SOCKET = Path("/run/virt-warden/hook.sock")
_EMPTY_HOOK = "#!/usr/bin/python3 -IS\n"
_DEFAULT_RUNS = 30
_MS = 1000


@dataclass
class Way:
    """One way to start the VM; seconds of each run so far."""

    title: str
    name: str
    hook: bytes | None = None
    filterref: str | None = None
    enrolled: bool = False
    served: bool = False
    adopted: str = ""
    """The XML of a VM that is only created."""
    starts: list[float] = field(default_factory=list)
    destroys: list[float] = field(default_factory=list)

    def both(self) -> list[float]:
        """Seconds of start and destroy together, of each run."""
        return [start + destroy for start, destroy in zip(self.starts, self.destroys, strict=True)]


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print a table of medians and ratios."""
    options = _parser().parse_args(arguments)
    with _host() as (libvirt, bridge_name):
        _know(options.known)
        _run_beside(libvirt, bridge_name)
        ways = _ways()
        for number, way in enumerate(ways, 1):
            _define(libvirt, way, number, bridge_name)
            _warm_up(libvirt, way)
        for number in range(options.runs):
            # Each way takes its turn at being the first and the last.
            turn = number % len(ways)
            for way in ways[turn:] + ways[:turn]:
                _measure(libvirt, way)
    _print_table(ways, options.runs)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.start", description=__doc__)
    help_runs = f"starts of each way (default: {_DEFAULT_RUNS})"
    parser.add_argument("--runs", type=_positive, default=_DEFAULT_RUNS, help=help_runs)
    help_known = "enrolled VMs that the host knows beside them, all of which ran once"
    parser.add_argument("--known", type=int, default=0, help=help_known)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


@contextmanager
def _host() -> Iterator[tuple[Libvirt, str]]:
    # libvirtd looks only when it starts whether there is a hook: install() puts one there.
    install()
    set_policy('managed = ["guarded", "served", "adopted", "beside", "known-*"]\n')
    _IMAGES.mkdir()
    with libvirtd() as libvirt, bridge("br0") as bridge_name, service():
        yield libvirt, bridge_name


def _know(number: int) -> None:
    """Have the host know many VMs, each with a user and a journal of its own."""
    names = [f"known-{n}" for n in range(number)]
    uuids = {name: str(uuid5(NAMESPACE_DNS, name)) for name in names}
    with Path("/etc/passwd").open("a") as passwd, Path("/etc/group").open("a") as group:
        for uid, name in enumerate(names, _KNOWN_UIDS):
            comment = f"virt-warden domain {uuids[name]}"
            passwd.write(f"vmw-{name}:x:{uid}:{uid}:{comment}:/nonexistent:/usr/sbin/nologin\n")
            group.write(f"vmw-{name}:x:{uid}:\n")
    connection = libvirt_python.open("qemu:///system")
    for name in names:
        _PATHS.domain_state(uuids[name]).mkdir(parents=True)
        disk = Disk(_IMAGES / "known.qcow2", format="raw")
        xml = domain_xml(name, uuid=uuids[name], disks=[disk]).encode()
        connection.defineXML(enrol_xml(xml, "vmw-", _PATHS).decode())
    connection.close()


def _run_beside(libvirt: Libvirt, bridge_name: str) -> None:
    """Have a VM under guard that does nothing, not even boot."""
    disk, nic = Disk(qcow2(_IMAGES / "beside.qcow2")), Nic("52:54:00:00:00:f0", bridge_name)
    libvirt.define(domain_xml("beside", disks=[disk], nics=[nic]))
    run("virt-warden", "enrol", "beside")
    run("virsh", "start", "--paused", "beside")


def _ways() -> list[Way]:
    ours = _HOOK.read_bytes()
    return [
        Way("libvirt, no hook", "plain"),
        Way("an empty Python hook", "empty", hook=_EMPTY_HOOK.encode()),
        Way("filterref clean-traffic", "filtered", filterref="clean-traffic"),
        Way("virt-warden, its hook alone", "guarded", hook=ours, enrolled=True),
        Way("virt-warden, its service", "served", hook=ours, enrolled=True, served=True),
        Way("adopted, with a new user", "adopted", hook=ours, served=True, adopted="<domain/>"),
    ]


def _define(libvirt: Libvirt, way: Way, number: int, bridge_name: str) -> None:
    disk = Disk(qcow2(_IMAGES / f"{way.name}.qcow2"))
    nic = Nic(f"52:54:00:00:00:{number:02x}", bridge_name, filterref=way.filterref)
    if way.adopted:
        way.adopted = domain_xml(way.name, disks=[disk], nics=[nic], vnc=Vnc(), emulator=None)
        return
    libvirt.define(domain_xml(way.name, disks=[disk], nics=[nic], vnc=Vnc()))
    if way.enrolled:
        run("virt-warden", "enrol", way.name)


def _warm_up(libvirt: Libvirt, way: Way) -> None:
    """Start once for the caches, the user and the authority, and see that guards are up."""
    _place(way)
    _start(libvirt, way)
    if way.enrolled or way.adopted:
        run("virt-warden", "status", way.name)
    libvirt.destroy(way.name)


def _measure(libvirt: Libvirt, way: Way) -> None:
    _place(way)
    way.starts.append(_seconds(lambda: _start(libvirt, way)))
    way.destroys.append(_seconds(lambda: libvirt.destroy(way.name)))


def _start(libvirt: Libvirt, way: Way) -> None:
    if way.adopted:
        libvirt.virsh("create", "/dev/stdin", stdin=way.adopted)
    else:
        libvirt.start(way.name)


def _place(way: Way) -> None:
    show(_SOCKET, in_place=way.served)
    if way.hook is None:
        _HOOK.unlink(missing_ok=True)
        return
    new = _HOOK.with_name(".new")
    new.write_bytes(way.hook)
    new.chmod(0o755)
    new.replace(_HOOK)


def _seconds(act: Callable[[], None]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _print_table(ways: list[Way], runs: int) -> None:
    print(f"Medians of {runs} runs each: in ms, and as a multiple of libvirt without a hook.\n")
    print(f"{'':<29}{'start':>14}{'destroy':>16}{'both':>16}")
    plain, *_ = ways
    for way in ways:
        columns = (
            _column(way.starts, plain.starts),
            _column(way.destroys, plain.destroys),
            _column(way.both(), plain.both()),
        )
        print(f"{way.title:<29}{'  '.join(columns)}")


def _column(seconds: list[float], plain: list[float]) -> str:
    return f"{median(seconds) * _MS:8.0f} {median(seconds) / median(plain):4.2f}x"


if __name__ == "__main__":
    sys.exit(main())

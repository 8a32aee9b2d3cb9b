# SPDX-License-Identifier: GPL-2.0-or-later
"""`make chaos`: deeds by chance, several at once, and what is left when all of it is over.

What is done follows from the seed; how it interleaves does not.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

from tests.chaos.deeds import DEEDS, Deed, Host, Served
from tests.host import network
from tests.host.command import CommandFailedError, run
from tests.host.domain import Disk, Nic, Vnc, domain_xml
from tests.host.images import qcow2
from tests.host.install import install
from tests.host.libvirt import Libvirt, libvirtd
from tests.libvirt.snapshots import make_base_chains, snapshot
from tests.libvirt.warden import ENFORCING, PATHS, set_policy, until
from virtwarden.system import files

_IMAGES = Path("/var/lib/libvirt/images/chaos")
_DOMAINS = 6
_AT_ONCE = 4
_SMALL = "size=16m,mode=0711"


def main() -> int:
    """Give 0 where nothing is left over and every promise is kept, else 1 with what is."""
    options = _options()
    print(f"seed {options.seed}, {options.deeds} deeds, for {options.seconds} s at the most")
    install()
    set_policy(ENFORCING)
    for directory in (PATHS.run, PATHS.state):
        directory.mkdir(mode=0o711, exist_ok=True)
        run("mount", "-t", "tmpfs", "-o", _SMALL, "tmpfs", str(directory))
    make_base_chains()
    files.private_directory(PATHS.ports)  # made by the first look after a flush
    with (
        libvirtd() as libvirt,
        network.bridge("br-chaos") as bridge,
        _domains(libvirt, bridge) as names,
        closing(Served()) as served,
    ):
        before = _state()
        done = _let_loose(Host(libvirt, served, names), options)
        wrong = [*_settle(libvirt, names), *_difference(before, _state())]
    print(", ".join(f"{count} {name}" for name, count in sorted(done.items())))
    for line in wrong:
        print(f"WRONG: {line}")
    print("Something is left over." if wrong else "Nothing is left over.")
    return int(bool(wrong))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos")
    parser.add_argument("--deeds", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    return parser.parse_args()


@contextmanager
def _domains(libvirt: Libvirt, bridge: str) -> Iterator[tuple[str, ...]]:
    """Domains on one base image, each of which was started once, so that it has its user."""
    _IMAGES.mkdir(mode=0o711)
    base = qcow2(_IMAGES / "base.qcow2", mode=0o644)
    names = tuple(f"chaos{number}" for number in range(_DOMAINS))
    for number, name in enumerate(names):
        disk = qcow2(_IMAGES / f"{name}.qcow2", backing=base)
        nic = Nic(f"52:54:00:00:01:{number:02x}", bridge)
        libvirt.define(domain_xml(name, disks=[Disk(disk)], nics=[nic], vnc=Vnc()))
        run("virt-warden", "enrol", name)
        libvirt.start(name)
        libvirt.destroy(name)
    yield names


def _let_loose(host: Host, options: argparse.Namespace) -> Counter[str]:
    """Do the deeds, several at once. A deed may fail; what it leaves may not."""
    chance = random.Random(options.seed)  # noqa: S311 - to be done again, not to be secret
    chosen = chance.choices(list(DEEDS), weights=list(DEEDS.values()), k=options.deeds)
    deadline = time.monotonic() + options.seconds
    done: Counter[str] = Counter()

    def do(deed: Deed, seed: int) -> None:
        if time.monotonic() < deadline:
            try:
                deed(host, random.Random(seed))  # noqa: S311
            except CommandFailedError as failure:
                print(f"{deed.__name__}: {failure}")
            done[deed.__name__] += 1

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for future in [pool.submit(do, deed, chance.randrange(1 << 32)) for deed in chosen]:
            future.result()
    return done


def _settle(libvirt: Libvirt, names: tuple[str, ...]) -> Iterator[str]:
    """All domains start and are whole once more; then all end, and what a crash left is undone."""
    set_policy(ENFORCING)
    libvirt.restart()
    run("virt-warden", "recover", check=False)
    for name in names:
        if libvirt.virsh("domstate", name).stdout.strip() != "running":
            try:
                libvirt.start(name)
            except CommandFailedError as failure:
                yield f"{name} does not start any more: {failure}"
    for standing in json.loads(run("virt-warden", "status", "--json", check=False).stdout):
        yield from (f"{standing['name']}: {breach}" for breach in standing["breaches"])
    for item in json.loads(run("virt-warden", "audit", "--json", check=False).stdout)["items"]:
        grave = item["severity"] in ("high", "critical")
        if item["subject"] in names and grave and item["state"] != "good":
            yield f"{item['subject']}: {item['id']}: {item['seen']}"
    for name in names:
        libvirt.virsh("destroy", name, check=False)
    until(lambda: not list(PATHS.state.glob("domains/*/run.journal")))


def _state() -> dict[str, str]:
    return snapshot([_IMAGES, PATHS.run, PATHS.state])


def _difference(before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    for key in sorted({*before, *after}):
        if before.get(key) != after.get(key):
            yield f"{key}: was {before.get(key, 'not there')}, is {after.get(key, 'not there')}"


if __name__ == "__main__":
    sys.exit(main())

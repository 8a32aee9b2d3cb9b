# SPDX-License-Identifier: GPL-2.0-or-later
"""The appliance with virt-warden: installed by apt, on the running host, as its admin does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from tests.appliance import build
from tests.appliance.build import Image
from tests.appliance.machine import Host, booted
from tests.appliance.recipe import Recipe
from tests.debian.kept import key, once
from tests.host.namespace import CHECKOUT

PACKAGES = CHECKOUT / "build" / "deb"
ON_THE_HOST = "/root/virt-warden.deb"


def newest_package() -> Path:
    """Our .deb, as `make deb` left it; raises LookupError where it did not."""
    found = sorted(PACKAGES.glob("virt-warden_*_all.deb"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise LookupError(f"no .deb in {PACKAGES}: make deb")
    return found[-1]


def install(host: Host, package: Path) -> None:
    """Install the .deb, and what it depends on from the archive."""
    host.put(ON_THE_HOST, package)
    host.run(f"apt-get -q update && apt-get -q install -y {ON_THE_HOST}", seconds=600)


def plain(recipe: Recipe) -> Image:
    """A host with libvirt that was up once: what it works out at its first start is kept."""
    fresh = build.base(recipe)

    def warm_up(host: Host) -> None:
        host.run("virsh domcapabilities --arch x86_64")

    return _layer(fresh, f"{fresh.disk.parent.name}-plain", warm_up)


def with_package(plain: Image, package: Path) -> Image:
    """`plain`, with the package installed."""
    made_of = key(str(plain.disk), hashlib.sha256(package.read_bytes()).hexdigest())
    name = f"{plain.disk.parent.name}-guarded-{made_of}"
    return _layer(plain, name, lambda host: install(host, package))


def _layer(below: Image, name: str, steps: Callable[[Host], None]) -> Image:
    """What the steps make of an image, once for each name."""

    def make(directory: Path) -> None:
        with booted(below) as host:
            steps(host)
            host.shut_down()
            host.machine.move_disk(directory / "disk")

    return Image(once(build.STORE, name, make) / "disk", "qcow2", below.kernel, below.kernel_line)

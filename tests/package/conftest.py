# SPDX-License-Identifier: GPL-2.0-or-later
r"""What the tests of the Debian package share: it is built once, and no test leaves it installed.

Run from the checkout's root, as root:

    /usr/bin/python3 -B -m tests.host -- /usr/bin/python3 -B -m pytest tests/package
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.libvirt import Libvirt, libvirtd
from tests.host.namespace import CHECKOUT, require_private_host
from tests.libvirt.warden import Warden
from tests.package.dpkg import Package, build

_IMAGES = Path("/var/lib/libvirt/images")


@pytest.fixture(scope="session")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built from the checkout."""
    require_private_host()
    return build(CHECKOUT, tmp_path_factory.mktemp("deb") / "built")


@pytest.fixture(scope="session", name="libvirt")
def _libvirt() -> Iterator[Libvirt]:
    with libvirtd() as libvirt:
        yield libvirt


@pytest.fixture(scope="session")
def quick_host() -> None:
    """What takes long and is not ours: a df in the way of the real one, since purge searches all
    local file systems, and a private host has each of the real one's twice, while the tests' VMs
    have files below /var alone; and no index of manual pages."""
    stand_in = Path("/usr/sbin/df")
    stand_in.write_text("#!/bin/sh\nprintf 'Mounted on\\n/var\\n'\n")
    stand_in.chmod(0o755)
    Path("/var/lib/man-db/auto-update").unlink(missing_ok=True)


@pytest.fixture
def package(deb: Path, libvirt: Libvirt, quick_host: None) -> Iterator[Package]:
    """The package, not installed yet, beside a libvirt that has no domain."""
    package = Package(deb)
    yield package
    libvirt.remove_domains()
    if package.status():
        package.purge(forget_uids=True)


@pytest.fixture
def warden(package: Package, libvirt: Libvirt) -> Warden:
    """virt-warden, installed, in charge of every domain."""
    package.install()
    return Warden(libvirt)


@pytest.fixture
def images(request: pytest.FixtureRequest) -> Path:
    """A new directory for disk images, in which QEMU finds them."""
    directory = _IMAGES / str(request.node.name).replace("/", "-")
    directory.mkdir(mode=0o711)
    return directory

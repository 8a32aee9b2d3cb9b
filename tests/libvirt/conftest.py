# SPDX-License-Identifier: GPL-2.0-or-later
r"""What the tests share: one libvirtd for all of them; a bridge and a system log for each.

Run from the checkout's root, as root:

    /usr/bin/python3 -B -m tests.host -- \
        /usr/bin/python3 -m pytest -p no:cacheprovider tests/libvirt
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host import network
from tests.host.command import run
from tests.host.images import luks
from tests.host.install import install
from tests.host.libvirt import Libvirt, libvirtd
from tests.host.mapper import device_mapper
from tests.host.namespace import require_private_host
from tests.host.service import Service
from tests.host.service import service as running_service
from tests.host.syslog import Syslog, syslog_socket
from tests.libvirt.vault import KEY, Vault, key_file, opened
from tests.libvirt.warden import ENFORCING, LEFT_ALONE, PATHS, Warden, set_policy

# Where QEMU, as whatever user, may search; pytest's own tmp_path is root's alone.
_IMAGES = Path("/var/lib/libvirt/images")

_bridge_numbers = itertools.count()


@pytest.fixture(scope="session", name="libvirt")
def _libvirt() -> Iterator[Libvirt]:
    install()
    set_policy(LEFT_ALONE)
    with libvirtd() as libvirt:
        yield libvirt


@pytest.fixture
def domains(libvirt: Libvirt) -> Iterator[Libvirt]:
    """The session's libvirt, which has no domain before and none after the test."""
    yield libvirt
    libvirt.remove_domains()


@pytest.fixture
def warden(domains: Libvirt) -> Iterator[Warden]:
    """virt-warden in charge of every domain; without this fixture it leaves all alone."""
    set_policy(ENFORCING)
    yield Warden(domains)
    domains.remove_domains()
    if any(PATHS.state.glob("domains/*/run.journal")):
        run("virt-warden", "recover")
    set_policy(LEFT_ALONE)


@pytest.fixture
def service(warden: Warden, syslog: Syslog) -> Iterator[Service]:
    """virt-warden.service, which has seen to all that is there."""
    with running_service() as running:
        syslog.wait_for("event=all-seen-to", timeout=20)
        syslog.clear()
        yield running


@pytest.fixture
def vault(warden: Warden, images: Path, dm: None) -> Iterator[Vault]:
    """A domain's encrypted disk, which is closed again at the test's end."""
    made = Vault(warden, luks(images / "web01.luks", KEY), key_file(images / "key"))
    made.say()
    yield made
    warden.libvirt.remove_domains()
    assert opened() == []


@pytest.fixture
def bridge() -> Iterator[str]:
    """A bridge of the test's own."""
    with network.bridge(f"br-test{next(_bridge_numbers)}") as name:
        yield name


@pytest.fixture
def syslog() -> Iterator[Syslog]:
    """What is sent to the system log during the test."""
    with syslog_socket() as log:
        yield log


@pytest.fixture(scope="module")
def dm() -> Iterator[None]:
    """A device mapper, in which cryptsetup opens containers."""
    with device_mapper():
        yield


@pytest.fixture
def images(request: pytest.FixtureRequest) -> Path:
    """A new directory for disk images, in which QEMU finds them."""
    require_private_host()
    directory = _IMAGES / str(request.node.name).replace("/", "-")
    directory.mkdir(mode=0o711)
    return directory

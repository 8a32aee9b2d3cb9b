# SPDX-License-Identifier: GPL-2.0-or-later
"""What the scenarios share: hosts with and without virt-warden. See the package's docstring."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.appliance import layers
from tests.appliance.build import Image
from tests.appliance.hardware import Cable, Hardware
from tests.appliance.machine import Host
from tests.appliance.recipe import RECIPES, TRIXIE
from tests.appliance.scratch import scratch
from tests.appliance.watched import HOSTS, Boot, watched

_JOURNAL_LINES = 80


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which Debian, which package."""
    parser.addoption("--debian", choices=sorted(RECIPES), default=TRIXIE.codename)
    parser.addoption("--deb", type=Path, help="our .deb; else the newest in build/deb")


def pytest_configure(config: pytest.Config) -> None:
    """Remember which hosts run, for the reports of failures."""
    config.stash[HOSTS] = []


@pytest.fixture(scope="session")
def package(pytestconfig: pytest.Config) -> Path:
    """Our .deb."""
    given: Path | None = pytestconfig.getoption("deb")
    return given or layers.newest_package()


@pytest.fixture(scope="session")
def plain_image(pytestconfig: pytest.Config) -> Image:
    """A Debian host with libvirt."""
    return layers.plain(RECIPES[pytestconfig.getoption("debian")])


@pytest.fixture(scope="session")
def guarded_image(plain_image: Image, package: Path) -> Image:
    """The same, on which our package was installed."""
    return layers.with_package(plain_image, package)


@pytest.fixture(scope="session")
def selinux_image(pytestconfig: pytest.Config, package: Path) -> Image:
    """A host with our package, on which SELinux is in AppArmor's place."""
    recipe = RECIPES[pytestconfig.getoption("debian")].with_selinux()
    return layers.with_package(layers.plain(recipe), package)


@pytest.fixture(scope="module")
def plain(request: pytest.FixtureRequest, plain_image: Image) -> Iterator[Host]:
    """A host without virt-warden, one for the module."""
    with watched(request, plain_image, Hardware()) as host:
        yield host


@pytest.fixture(scope="module")
def guarded(request: pytest.FixtureRequest, guarded_image: Image) -> Iterator[Host]:
    """A host with virt-warden, one for the module."""
    with watched(request, guarded_image, Hardware()) as host:
        yield host


@pytest.fixture(scope="module", params=["plain", "guarded"])
def either(request: pytest.FixtureRequest) -> Host:
    """First a host without virt-warden, then one with it: the test holds on both."""
    host: Host = request.getfixturevalue(request.param)
    return host


@pytest.fixture
def boot(request: pytest.FixtureRequest) -> Iterator[Boot]:
    """Boot hosts of the test's own: boot("plain" or "guarded", disks=["1G"], cables=[…])."""
    with ExitStack() as running:

        def boot(kind: str, **hardware: Any) -> Host:
            image: Image = request.getfixturevalue(f"{kind}_image")
            return running.enter_context(watched(request, image, Hardware(**hardware)))

        yield boot


@pytest.fixture
def cable() -> Iterator[Callable[[], Cable]]:
    """Make cables for the test."""
    with ExitStack() as made:

        def cable() -> Cable:
            new = Cable(made.enter_context(scratch()))
            made.callback(new.let_go)
            return new

        yield cable


@pytest.hookimpl(hookwrapper=True)  # type: ignore[untyped-decorator]
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Add to a failure what the hosts say of it."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        running: list[Host] = item.config.stash[HOSTS]
        for number, host in enumerate(running):
            report.sections.append((f"host {number}: console", host.console()))
            report.sections.append((f"host {number}: journal", host.journal(_JOURNAL_LINES)))

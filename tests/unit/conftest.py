# SPDX-License-Identifier: GPL-2.0-or-later
"""What holds for every unit test: it is pure, and starts no process unless it says so."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, settings

from virtwarden import log

GOLDEN = Path(__file__).parent / "golden"
_STARTERS = ("fork", "forkpty", "posix_spawn", "posix_spawnp", "system", "popen")
_STARTERS += ("execv", "execve", "execvp", "execvpe", "execl", "execle", "execlp", "execlpe")
_GIVING_AWAY = ("chown", "fchown", "lchown")
_WITHOUT_LIBVIRT = importlib.util.find_spec("libvirt") is None


class _NoLibvirt(ModuleType):
    """In the place of libvirt-python where it is not installed: unit tests ask no libvirt."""

    class libvirtError(Exception):  # noqa: N801 - as libvirt-python has it
        pass

    def __getattr__(self, name: str) -> int:
        if not name.startswith("VIR_"):
            raise AttributeError(name)
        return 0


if _WITHOUT_LIBVIRT:
    sys.modules["libvirt"] = _NoLibvirt("libvirt")


# A slow machine is no defect of what is tested.
settings.register_profile("unit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unit")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regenerate-golden",
        action="store_true",
        help="write tests/unit/golden anew; read the difference before you commit it",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "process: the test starts processes")
    config.addinivalue_line("markers", "root: the test does what only root may do")


def pytest_report_header() -> list[str]:
    return ["libvirt-python is not installed: a stand-in takes its place"] * _WITHOUT_LIBVIRT


@pytest.fixture(autouse=True)
def _no_root(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root, skip a test that needs it, or that gives a file away, at that moment."""
    if os.geteuid() == 0:
        return
    if request.node.get_closest_marker("root"):
        pytest.skip("only root may do this")

    def or_skip(give: Callable[..., None]) -> Callable[..., None]:
        def wrapped(*args: Any, **options: Any) -> None:
            try:
                give(*args, **options)
            except PermissionError:
                pytest.skip("only root may give a file away")

        return wrapped

    for name in _GIVING_AWAY:
        monkeypatch.setattr(os, name, or_skip(getattr(os, name)))


@pytest.fixture(autouse=True)
def _no_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("process"):
        return

    def refuse(*_: Any, **__: Any) -> NoReturn:
        pytest.fail("a unit test started a process: mark it with @pytest.mark.process")

    for name in _STARTERS:
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)


@pytest.fixture(autouse=True)
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that went to the system log, which the tests keep clean."""
    lines: list[str] = []
    monkeypatch.setattr(log.syslog, "openlog", lambda *_: None)
    monkeypatch.setattr(log.syslog, "syslog", lambda level, line: lines.append(f"{level} {line}"))
    return lines


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compares a text with the file of this name, or writes it where that is asked for."""

    def compare(name: str, text: str) -> None:
        file = GOLDEN / name
        if request.config.getoption("--regenerate-golden"):
            file.write_text(text)
        assert file.exists(), f"there is no {file}: run pytest with --regenerate-golden"
        assert text == file.read_text(), (
            f"{file.name} differs; if that is right: --regenerate-golden"
        )

    return compare

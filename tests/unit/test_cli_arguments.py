# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line of `virt-warden`: what is asked of which module, and what comes of misuse."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from virtwarden import __version__
from virtwarden.cli import main as cli
from virtwarden.errors import HostError
from virtwarden.policy import InvalidPolicy, Problem


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, argparse.Namespace]]:
    """Which command was run with which options, as root; none does anything."""
    calls: list[tuple[str, argparse.Namespace]] = []
    monkeypatch.setattr("os.geteuid", lambda: 0)
    for name in cli.COMMANDS:
        module = importlib.import_module(f"virtwarden.cli.{name.replace('-', '_')}")

        def run(options: argparse.Namespace, paths: Any, name: str = name) -> int:
            calls.append((name, options))
            return 0

        monkeypatch.setattr(module, "run", run)
    return calls


def fails(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`virt-warden status` raises this."""
    module = importlib.import_module("virtwarden.cli.status")

    def run(*_: object) -> int:
        raise error

    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return module


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_its_module_and_a_help(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"virtwarden.cli.{name.replace('-', '_')}")
    assert callable(module.run)
    assert callable(module.arguments)
    assert module.__doc__ is not None
    assert module.__doc__.startswith(f"`virt-warden {name}`")
    with pytest.raises(SystemExit) as left:
        cli.main([name, "--help"])
    assert left.value.code == 0
    assert f"virt-warden {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("enrol web01 db01", {"domains": ["web01", "db01"], "all": False, "xml": None}),
        ("enrol --all", {"domains": [], "all": True}),
        ("enrol --xml web01.xml", {"xml": Path("web01.xml"), "all": False}),
        ("enrol --xml -", {"xml": Path("-")}),
        ("unenrol web01", {"domains": ["web01"], "all": False}),
        ("unenrol --all", {"all": True}),
        ("status", {"domains": [], "json": False}),
        ("status --json web01", {"domains": ["web01"], "json": True}),
        ("explain web01", {"domain": "web01"}),
        ("recover", {"domains": [], "ledger": False}),
        ("recover web01", {"domains": ["web01"]}),
        ("recover --ledger", {"domains": [], "ledger": True}),
        ("policy check", {"action": "check"}),
        ("explain policy", {"domain": "policy"}),
        ("status enrol unenrol", {"domains": ["enrol", "unenrol"]}),
        ("enrol -- --all", {"domains": ["--all"], "all": False}),
    ],
)
def test_what_is_asked_reaches_the_commands_module(
    asked: list[tuple[str, argparse.Namespace]], words: str, options: dict[str, Any]
) -> None:
    assert cli.main(words.split()) == 0
    ((name, found),) = asked
    assert name == words.split()[0]
    assert {key: getattr(found, key) for key in options} == options


@pytest.mark.parametrize(
    "words",
    [
        "",
        "no-such-command",
        "enrol",
        "enrol --all web01",
        "enrol --all --xml a",
        "enrol --xml",
        "unenrol",
        "explain",
        "explain a b",
        "status --yaml",
        "policy",
        "policy no-such-action",
        "--no-such-option",
    ],
)
def test_misuse_is_2_and_says_how_it_is_used(
    asked: list[tuple[str, argparse.Namespace]], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(words.split())
    assert left.value.code == 2
    assert "usage: virt-warden" in capsys.readouterr().err
    assert asked == []


def test_the_version_is_told_to_everybody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"virt-warden {__version__}\n"


@pytest.mark.parametrize("words", ["status", "enrol --all", "policy check"])
def test_only_root_gets_an_answer(
    asked: list[tuple[str, argparse.Namespace]],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert cli.main(words.split()) == 1
    assert (
        capsys.readouterr().err == "virt-warden: only root may do that; fix: sudo virt-warden …\n"
    )
    assert asked == []


def test_an_error_is_one_line_and_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fails(HostError("libvirt\nis away", fix="systemctl start libvirtd"), monkeypatch)
    assert cli.main(["status"]) == 1
    assert capsys.readouterr().err == (
        "virt-warden: libvirt is away; fix: systemctl start libvirtd\n"
    )


def test_a_reader_that_went_away_is_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fails(BrokenPipeError(), monkeypatch)
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert cli.main(["status"]) == 0


def test_only_the_module_of_the_command_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """`policy check` must work where libvirt does not."""
    imported: list[str] = []
    real = importlib.import_module

    def spy(name: str) -> ModuleType:
        imported.append(name)
        return real(name)

    monkeypatch.setattr(cli.importlib, "import_module", spy)
    with pytest.raises(SystemExit):
        cli.main(["policy", "--help"])
    assert imported == ["virtwarden.cli.policy"]


def test_every_mistake_of_the_policy_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module("virtwarden.cli.policy")
    problems = [Problem("policy.toml", 3, "mode: no"), Problem("d/a.toml", 1, "listen: no")]

    def load(paths: Any, *, store: bool) -> None:
        raise InvalidPolicy(problems)

    monkeypatch.setattr(module, "load", load)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert cli.main(["policy", "check"]) == 1
    assert capsys.readouterr().err == "policy.toml:3: mode: no\nd/a.toml:1: listen: no\n"

# SPDX-License-Identifier: GPL-2.0-or-later
"""What this very host answers: without a trace of the question."""

from __future__ import annotations

from pathlib import Path

import pytest

from virtwarden.changes import worked
from virtwarden.guards.facts import HostFacts
from virtwarden.paths import Paths
from virtwarden.system import netfilter, portfilter


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(run=tmp_path / "run")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Which tools were tried; they all work."""
    program = tmp_path / "tool"
    program.write_text("")
    tried: list[str] = []
    for tools, backends in (
        (worked._TAP_TOOLS, netfilter.BACKENDS),
        (worked._PORT_TOOLS, portfilter.BACKENDS),
    ):
        for name, backend in backends.items():
            monkeypatch.setitem(tools, name, program)
            monkeypatch.setattr(backend, "works", lambda name=name: not tried.append(name))
    return tried


def test_to_ask_whether_a_tool_works_writes_nothing(paths: Paths, asked: list[str]) -> None:
    facts = HostFacts(paths)
    for _ in range(2):
        assert facts.backend_works("nftables")
        assert facts.port_backend_works("iptables")
    assert asked == ["nftables", "iptables"] * 2
    assert not paths.run.exists()


def test_a_tool_that_has_worked_is_not_tried_again(paths: Paths, asked: list[str]) -> None:
    facts = HostFacts(paths)
    worked.note_filtered_taps(paths, "nftables")
    worked.note_limited_ports(paths, "iptables")
    assert facts.backend_works("nftables")
    assert facts.port_backend_works("iptables")
    assert asked == []
    assert facts.backend_works("ebtables")
    assert facts.port_backend_works("nftables")
    assert asked == ["ebtables", "nftables"]


def test_another_program_in_its_place_is_tried(
    paths: Paths, asked: list[str], tmp_path: Path
) -> None:
    worked.note_filtered_taps(paths, "nftables")
    (tmp_path / "tool").write_text("another")
    assert HostFacts(paths).backend_works("nftables")
    assert asked == ["nftables"]


def test_a_note_that_cannot_be_written_is_done_without(paths: Paths, asked: list[str]) -> None:
    paths.run.write_text("in the way")
    worked.note_filtered_taps(paths, "nftables")
    assert HostFacts(paths).backend_works("nftables")
    assert asked == ["nftables"]

"""systemd is told, by name or by path, and nobody else is."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from virtwarden.service.notify import notify


@pytest.mark.parametrize("abstract", [True, False])
def test_systemd_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, abstract: bool
) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name}" if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else name)
        notify("READY=1")
        assert systemd.recv(100) == b"READY=1"


def test_where_nobody_asked_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")

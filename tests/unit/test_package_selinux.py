# SPDX-License-Identifier: GPL-2.0-or-later
"""Our hooks under SELinux: labelled as its policy says, once it knows us; its admin told how."""

from __future__ import annotations

from pathlib import Path

import pytest

from virtwarden.errors import CommandError
from virtwarden.package import hookfile, selinux
from virtwarden.paths import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A host with our hooks in place."""
    source = tmp_path / "source"
    source.write_text("#!/bin/sh\n")
    paths = Paths(
        hooks=tmp_path / "hooks",
        state=tmp_path / "state",
        share=tmp_path / "share",
        selinux_modules=tmp_path / "selinux",
    )
    for kind in hookfile.KINDS:
        hookfile.place(paths, source, kind)
    return paths


@pytest.fixture(autouse=True)
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What was run, on a host with SELinux."""
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(selinux, "run", lambda *command: commands.append(command))
    monkeypatch.setattr(selinux.mac, "model", lambda: "selinux")
    return commands


def load_module(paths: Paths) -> None:
    (paths.selinux_modules / "default/active/modules/400/virt-warden").mkdir(parents=True)


def test_hooks_get_the_labels_that_the_policy_has_for_them(
    paths: Paths, ran: list[tuple[str, ...]]
) -> None:
    load_module(paths)
    assert selinux.permit(paths) == []
    hooks = [str(paths.hooks / kind) for kind in ("qemu", "network")]
    assert ran == [("/usr/sbin/restorecon", *hooks)]


def test_an_admins_own_hook_keeps_its_label(paths: Paths, ran: list[tuple[str, ...]]) -> None:
    load_module(paths)
    (paths.hooks / "qemu").write_text("#!/bin/sh\n# mine\n")
    assert selinux.permit(paths) == []
    assert ran == [("/usr/sbin/restorecon", str(paths.hooks / "network"))]


def test_a_module_that_is_disabled_is_not_there(paths: Paths) -> None:
    load_module(paths)
    (paths.selinux_modules / "default/active/modules/disabled").mkdir()
    (paths.selinux_modules / "default/active/modules/disabled/virt-warden").touch()
    (report,) = selinux.permit(paths)
    assert "SELinux is on without virt-warden's modules" in report


def test_without_the_module_its_admin_is_told_how_to_load_it(paths: Paths) -> None:
    (report,) = selinux.permit(paths)
    assert f"semodule -i {paths.share}/selinux/virt-warden.cil" in report


def test_a_label_that_cannot_be_set_is_reported_and_nothing_fails(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: str) -> None:
        raise CommandError("restorecon exited 255", code=255, said="")

    monkeypatch.setattr(selinux, "run", fail)
    load_module(paths)
    (report,) = selinux.permit(paths)
    assert "restorecon exited 255" in report


@pytest.mark.parametrize("model", ["", "apparmor"])
def test_where_selinux_is_off_nothing_is_run_nor_said(
    paths: Paths, ran: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setattr(selinux.mac, "model", lambda: model)
    assert selinux.permit(paths) == []
    assert ran == []

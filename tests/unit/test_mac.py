# SPDX-License-Identifier: GPL-2.0-or-later
"""What SELinux tells of itself, by its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from virtwarden.system import mac


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a host without SELinux keeps nothing of it yet."""
    monkeypatch.setattr(mac, "_SELINUX_CONFIG", tmp_path / "config")
    monkeypatch.setattr(mac, "_SELINUX", tmp_path / "enforce")
    return tmp_path


def test_the_types_of_vms_are_those_of_the_policy_that_is_chosen(etc: Path) -> None:
    (etc / "config").write_text("# SELINUXTYPE=mls\nSELINUX=permissive\nSELINUXTYPE = default\n")
    contexts = etc / "default" / "contexts"
    contexts.mkdir(parents=True)
    (contexts / "virtual_domain_context").write_text(
        "system_u:system_r:svirt_t:s0\nsystem_u:system_r:svirt_tcg_t:s0\n"
    )
    assert mac.vm_types() == {"svirt_t", "svirt_tcg_t"}


def test_a_policy_that_knows_no_vms_has_no_type_for_them(etc: Path) -> None:
    assert mac.vm_types() == frozenset()
    (etc / "config").write_text("SELINUX=enforcing\n")
    assert mac.vm_types() == frozenset()


@pytest.mark.parametrize(("enforce", "permissive"), [("0", True), ("1", False), (None, False)])
def test_it_is_permissive_where_it_is_on_and_only_logs(
    etc: Path, enforce: str | None, *, permissive: bool
) -> None:
    if enforce is not None:
        (etc / "enforce").write_text(enforce)
    assert mac.is_permissive() is permissive

# SPDX-License-Identifier: GPL-2.0-or-later
"""`make install` and `make uninstall` on a host that is not ready for them."""

from __future__ import annotations

from pathlib import Path

from tests.host.command import run
from tests.host.libvirt import Libvirt
from tests.host.namespace import CHECKOUT
from tests.libvirt.snapshots import snapshot

PLACES = [Path("/etc/libvirt/hooks"), Path("/usr/share/virt-warden"), Path("/usr/lib/virt-warden")]


def test_what_the_hook_could_not_run_with_is_not_installed(
    libvirt: Libvirt, tmp_path: Path
) -> None:
    bare = tmp_path / "python3"
    bare.write_text('#!/bin/sh\nexec /usr/bin/python3 -S "$@"\n')
    bare.chmod(0o755)
    before = snapshot(PLACES)
    done = run("make", "-C", str(CHECKOUT), "install", f"PYTHON={bare}", check=False)
    assert done.returncode != 0
    assert "fix: make needs" in done.stderr
    assert snapshot(PLACES) == before

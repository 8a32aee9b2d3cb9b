# SPDX-License-Identifier: GPL-2.0-or-later
"""What removal gives back to libvirt."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from virtwarden.package import removal
from virtwarden.paths import Paths


def test_the_directories_of_helpers_are_as_libvirt_made_them(tmp_path: Path) -> None:
    paths = Paths(
        run=tmp_path / "ours",
        libvirt_run=tmp_path / "qemu",
        libvirt_state=tmp_path / "state",
        libvirt_cache=tmp_path / "cache",
    )
    modes = {"dbus": 0o770, "passt": 0o755, "slirp": 0o755, "swtpm": 0o770}
    for name in modes:
        (paths.libvirt_run / name).mkdir(parents=True)
        (paths.libvirt_run / name).chmod(0o1775)
    paths.run.mkdir()
    removal._give_directories_back(paths)
    assert (paths.libvirt_run / "swtpm").stat().st_mode & stat.S_ISVTX, "none was taken"
    paths.libvirts_user.write_text(str(os.getuid()))
    removal._give_directories_back(paths)
    found = {name: stat.S_IMODE((paths.libvirt_run / name).stat().st_mode) for name in modes}
    assert found == modes

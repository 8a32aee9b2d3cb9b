# SPDX-License-Identifier: GPL-2.0-or-later
"""What libvirt takes for its default emulators: a wrapper for each QEMU that is installed.

The directory is first on the PATH of libvirt's daemon (packaging/libvirt-path.conf). It has
a symlink for each QEMU of this host: libvirt would ask a wrapper without a QEMU in vain.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from virtwarden.guards import ticket
from virtwarden.guards.base import SUPPLEMENTARY_GROUPS
from virtwarden.paths import Paths
from virtwarden.system import acl, users

_NAMES = "qemu-system-*"


def link(paths: Paths) -> None:
    """Have a link for each wrapper whose QEMU is there, and no other."""
    paths.emulators.mkdir(mode=0o755, exist_ok=True)
    wrappers = {path.name for path in paths.wrapper_dir.glob(_NAMES)}
    wanted = {name for name in wrappers if (Path(ticket.EMULATORS) / name).exists()}
    for former in paths.emulators.iterdir():
        if former.name not in wanted:
            former.unlink()
    for name in wanted:
        place = paths.emulators / name
        if not place.is_symlink():
            place.symlink_to(f"../{name}")


def reveal() -> None:
    """Let VMs' users read the programs again, as before the first start that was adopted."""
    for name in SUPPLEMENTARY_GROUPS:
        gid = users.group_id(name)
        if gid is None:
            continue
        for program in Path(ticket.EMULATORS).glob(_NAMES):
            with suppress(OSError):
                _reveal(program, gid)


def _reveal(program: Path, gid: int) -> None:
    handle = os.open(program, os.O_PATH | os.O_CLOEXEC)
    try:
        acl.let_read_again(handle, gid)
    finally:
        os.close(handle)


def unlink(paths: Paths) -> None:
    """Remove the directory; harmless where there is none."""
    if paths.emulators.is_dir():
        for place in paths.emulators.iterdir():
            place.unlink()
        paths.emulators.rmdir()

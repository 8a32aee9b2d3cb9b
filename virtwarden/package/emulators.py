# SPDX-License-Identifier: GPL-2.0-or-later
"""What libvirt finds on its PATH: a wrapper for each QEMU that is installed, and for swtpm.

The directory is first on the PATH of libvirt's daemon (packaging/libvirt-path.conf). It has
a symlink for each of these programs of this host: libvirt would ask a wrapper without one in vain.

SELinux keeps each TPM's state apart by itself, and its policy does not know swtpm's wrapper.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from virtwarden.guards import ticket
from virtwarden.guards.base import SUPPLEMENTARY_GROUPS
from virtwarden.paths import Paths
from virtwarden.system import acl, mac, users

_EMULATORS = "qemu-system-*"
_HELPERS = "swtpm*"


def link(paths: Paths) -> bool:
    """Have a link for each wrapper whose program is there, and no other.

    Gives whether a helper of QEMU's has got one: libvirt looks for those once, and keeps the path.
    """
    paths.emulators.mkdir(mode=0o755, exist_ok=True)
    wanted = _wanted(paths, _EMULATORS)
    helpers = _wanted(paths, _HELPERS) if mac.model() != "selinux" else set()
    for former in paths.emulators.iterdir():
        if former.name not in wanted | helpers:
            former.unlink()
    new = {name for name in wanted | helpers if not (paths.emulators / name).is_symlink()}
    for name in new:
        (paths.emulators / name).symlink_to(f"../{name}")
    return bool(new & helpers)


def _wanted(paths: Paths, names: str) -> set[str]:
    wrappers = {path.name for path in paths.wrapper_dir.glob(names)}
    return {name for name in wrappers if (Path(ticket.EMULATORS) / name).exists()}


def reveal() -> None:
    """Let VMs' users read the programs again, as before the first start that was adopted."""
    for name in SUPPLEMENTARY_GROUPS:
        gid = users.group_id(name)
        if gid is None:
            continue
        for program in Path(ticket.EMULATORS).glob(_EMULATORS):
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

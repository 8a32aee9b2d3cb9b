# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the copies of a domain's boot files are: kernel, initrd, device tree, ACPI table, fw_cfg.

libvirt gives each of these to the domain's user, and takes none of them back before the guest runs.
So an enrolled domain's XML names copies, which are made at each start and which no other domain
uses.
"""

from __future__ import annotations

from virtwarden.domain.model import stamp
from virtwarden.paths import Paths

_LONGEST_NAME = 40


def copy_of(paths: Paths, uuid: str, original: str) -> str:
    """The path of a domain's own copy of a boot file."""
    name = original.rpartition("/")[2][-_LONGEST_NAME:]
    return str(paths.boot_files / uuid / f"{stamp(original)}-{name}")


def is_copy(paths: Paths, path: str) -> bool:
    """Whether a path lies where the copies are, of whatever domain."""
    return path.startswith(f"{paths.boot_files}/")

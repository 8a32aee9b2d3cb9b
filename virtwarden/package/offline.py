# SPDX-License-Identifier: GPL-2.0-or-later
"""Unenrols domains in libvirt's own files, where libvirt does not run.

libvirt reads these files only when it starts, and nobody may edit them while it runs. A managed
save is no XML file: what stays of virt-warden is there for it.
"""

from __future__ import annotations

from virtwarden.enrolment.enrol import remember, unenrolled
from virtwarden.errors import WardenError
from virtwarden.paths import Paths
from virtwarden.system import files


def unenrol_files(paths: Paths) -> tuple[list[str], list[str]]:
    """Unenrol every domain, snapshot and checkpoint on the disk.

    Gives which files it rewrote, and a sentence for each that it could not read.
    """
    written, failed = [], []
    for path in [
        *sorted(paths.libvirt_config.glob("*.xml")),
        *sorted(paths.libvirt_state.glob("snapshot/*/*.xml")),
        *sorted(paths.libvirt_state.glob("checkpoint/*/*.xml")),
    ]:
        try:
            former = path.read_bytes()
            xml = unenrolled(former, paths)
            if xml is not None and path.parent == paths.libvirt_config:
                remember(paths, former)
        except (WardenError, OSError) as error:
            failed.append(f"{path}: {error}")
            continue
        if xml is not None:
            files.write_atomically(path, xml, 0o600, durable=True)
            written.append(str(path))
    return written, failed

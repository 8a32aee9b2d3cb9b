# SPDX-License-Identifier: GPL-2.0-or-later
"""Unenrols and enrols domains in libvirt's own files, where libvirt does not run.

libvirt reads these files only when it starts, and nobody may edit them while it runs. A managed
save is no XML file: what stays of virt-warden is there for it.
"""

from __future__ import annotations

from virtwarden import log
from virtwarden.domain.model import read
from virtwarden.enrolment import passwords
from virtwarden.enrolment.enrol import enrol_xml, is_enrolled, remember, unenrolled
from virtwarden.errors import WardenError
from virtwarden.nextstart import foresee
from virtwarden.package import daemon
from virtwarden.paths import Paths
from virtwarden.policy import Mode, Policy
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


def enrol_files(paths: Paths, policy: Policy) -> None:
    """Enrol what libvirt is about to start by itself, so that it finds each domain enrolled.

    Such as a domain that nobody saw before, because it was there when virt-warden was installed and
    the host was switched off at once. Those that cannot be enrolled now, the service sees to later.
    """
    if daemon.running(paths):
        return
    for path in sorted(paths.libvirt_config.glob("*.xml")):
        try:
            xml = path.read_bytes()
            wanted = _enrolled(paths, policy, xml)
        except (WardenError, OSError):
            continue
        if wanted is not None:
            files.write_atomically(path, wanted, 0o600, durable=True)
            domain = read(wanted)
            bases = ",".join(base.path for disk in domain.disks for base in disk.layers)
            fields = {"domain": domain.name, "uuid": domain.uuid, "holds": "now", "bases": bases}
            log.event(log.Level.NOTICE, "enrolled", **fields)


def _enrolled(paths: Paths, policy: Policy, xml: bytes) -> bytes | None:
    """The XML of a domain as it is enrolled first; None where it is left as it is."""
    name = read(xml).name
    if not policy.manages(name) or is_enrolled(xml, paths):
        return None
    rules = policy.rules_for(name)
    if rules.mode is Mode.PERMISSIVE and foresee(paths, rules, xml).may_lack_access:
        return None
    if rules.mode is Mode.ENFORCING and passwords.objection(xml, rules) is not None:
        return None
    return enrol_xml(xml, rules.user_prefix, paths, via=rules.via)

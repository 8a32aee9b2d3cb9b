# SPDX-License-Identifier: GPL-2.0-or-later
"""What removal does to a host before the files go."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from pathlib import Path

import libvirt

from virtwarden import gate, recovery
from virtwarden.changes import journal
from virtwarden.changes.directories import libvirts_user
from virtwarden.errors import HostError, WardenError
from virtwarden.guards.pathways import libvirts_for_domains, libvirts_for_helpers, libvirts_own
from virtwarden.libvirtd.connection import connected, each, persistent
from virtwarden.libvirtd.copies import restore
from virtwarden.package import apparmor, daemon, emulators, farewell, hookfile, luks, selinux
from virtwarden.package.installation import Say
from virtwarden.package.offline import unenrol_files
from virtwarden.paths import Paths


def remove(paths: Paths, say: Say, warn: Say) -> bool:
    """Prepare the removal of the files.

    Gives False, and leaves everything in place, where a domain stays enrolled.
    """
    if not _unenrol(paths, say, warn):
        return False
    for line in luks.by_hand(paths):
        say(line)
    stopped = [uuid for uuid in journal.known_domains(paths) if not farewell.runs(uuid)]
    for uuid in stopped:
        try:
            for line in recovery.recovered(paths, uuid, lambda: True):
                say(line)
        except WardenError as error:
            warn(f"{uuid}: {error}")
    for report in apparmor.withdraw(paths):
        warn(report)
    for way in sorted(path.stem for path in (paths.state / "remote").glob("*.json")):
        say(
            f"what `virt-warden remote setup {way}` wrote stays: undo it with virt-warden installed"
        )
    _give_directories_back(paths)
    emulators.unlink(paths)
    emulators.reveal()
    hookfile.take_away(paths, "network")
    # From now on nothing would admit the taps of domains that start.
    gate.abandon(paths)
    reasons = farewell.needed(paths)
    if reasons:
        farewell.leave(paths)
        for report in selinux.label_hooks(paths):
            warn(report)
        say(f"a hook stays while: {'; '.join(reasons)}")
    else:
        hookfile.take_away(paths)
    return True


def _give_directories_back(paths: Paths) -> None:
    """Give libvirt's own directories to the user that has its others, as libvirt does itself."""
    user = libvirts_user(paths)
    if user is None:
        return
    for path in reversed((*libvirts_own(paths), *libvirts_for_domains(paths))):
        with suppress(FileNotFoundError):
            os.chown(path, user, -1, follow_symlinks=False)
    for path, mode in libvirts_for_helpers(paths).items():
        with suppress(FileNotFoundError):
            Path(path).chmod(mode)
            os.chown(path, user, -1, follow_symlinks=False)


def _unenrol(paths: Paths, say: Say, warn: Say) -> bool:
    try:
        with connected():
            pass
    except HostError as error:
        if daemon.running(paths):
            fix = "systemctl restart libvirtd, or stop it: domains are then unenrolled on disk"
            raise HostError(error.what, fix=fix) from None
        _unenrol_files(paths, say, warn)
        return True
    all_are = True
    for name, outcome in each(persistent, partial(_unenrol_one, paths, warn)):
        if isinstance(outcome, WardenError):
            warn(f"{name}: {outcome}")
            all_are = False
        else:
            say(f"{name} {outcome}")
    return all_are


def _unenrol_one(
    paths: Paths, warn: Say, connection: libvirt.virConnect, domain: libvirt.virDomain
) -> str:
    try:
        was_enrolled, reports = restore(connection, domain, paths)
    except WardenError as error:
        fix = f"virsh edit {domain.name()}, or: systemctl stop libvirtd; then remove again"
        raise HostError(error.what, fix=fix) from None
    for report in reports:  # What stays for running domains stays for these too.
        warn(report)
    if not was_enrolled:
        return "was not enrolled"
    return "is unenrolled" + (", from its next start on" if domain.isActive() else "")


def _unenrol_files(paths: Paths, say: Say, warn: Say) -> None:
    written, failed = unenrol_files(paths)
    for path in written:
        say(f"libvirt does not run: unenrolled in {path}")
    for failure in failed:
        warn(f"not unenrolled: {failure}")

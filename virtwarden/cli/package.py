"""`virt-warden package`: what the Debian package's scripts, and `make install`, have done."""

from __future__ import annotations

import argparse
import sys
from functools import partial

import libvirt

from virtwarden import gate
from virtwarden.changes import journal
from virtwarden.cli.recover import recover_one
from virtwarden.cli.terminal.for_each import for_each
from virtwarden.cli.unenrol import restore
from virtwarden.errors import HostError, WardenError
from virtwarden.libvirtd.connection import connected, persistent
from virtwarden.package import apparmor, daemon, farewell, hookfile, luks, selinux
from virtwarden.package.offline import unenrol_files
from virtwarden.paths import Paths


def arguments(parser: argparse.ArgumentParser) -> None:
    """See Command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("configure", help="put the hook and the AppArmor lines in place")
    actions.add_parser(
        "remove", help="make every domain again what it was, and take those out again"
    )


def run(options: argparse.Namespace, paths: Paths) -> int:
    """See Command."""
    return configure(paths) if options.action == "configure" else remove(paths)


def configure(paths: Paths) -> int:
    """After installation, upgrade, or when somebody took the hook's place. Needs no libvirt."""
    found = [hookfile.place(paths, paths.share / "hooks" / "qemu", kind) for kind in hookfile.KINDS]
    for where, is_new in found:
        if is_new:
            print(f"libvirt's hook is {where}")
    for report in (*apparmor.permit(paths), *selinux.permit(paths)):
        print(f"virt-warden: {report}", file=sys.stderr)
    farewell.withdraw(paths)
    if any(is_new for _, is_new in found):
        daemon.reload(paths)
    return 0


def remove(paths: Paths) -> int:
    """Before the files go. Gives 1, with all in place as before, where a domain stays enrolled."""
    if _unenrol(paths) != 0:
        return 1
    for line in luks.by_hand(paths):
        print(line)
    stopped = [uuid for uuid in journal.known_domains(paths) if not farewell.runs(uuid)]
    for uuid in stopped:
        recover_one(paths, uuid, lambda: True)
    for report in apparmor.withdraw(paths):
        print(f"virt-warden: {report}", file=sys.stderr)
    for way in sorted(path.stem for path in (paths.state / "remote").glob("*.json")):
        print(
            f"what `virt-warden remote setup {way}` wrote stays: undo it with virt-warden installed"
        )
    hookfile.take_away(paths, "network")
    # Nobody would let in what starts from now on.
    gate.abandon(paths)
    reasons = farewell.needed(paths)
    if reasons:
        farewell.leave(paths)
        for report in selinux.label_hooks(paths):
            print(f"virt-warden: {report}", file=sys.stderr)
        print(f"a hook stays until this has ended: {'; '.join(reasons)}")
    else:
        hookfile.take_away(paths)
    return 0


def _unenrol(paths: Paths) -> int:
    try:
        with connected():
            pass
    except HostError as error:
        if daemon.running(paths):
            fix = "systemctl restart libvirtd, or stop it: domains are then unenrolled on disk"
            raise HostError(error.what, fix=fix) from None
        return _unenrol_files(paths)
    return for_each(persistent, partial(_unenrol_one, paths))


def _unenrol_one(paths: Paths, connection: libvirt.virConnect, domain: libvirt.virDomain) -> str:
    try:
        was_enrolled, reports = restore(connection, domain, paths)
    except WardenError as error:
        fix = f"virsh edit {domain.name()}, or: systemctl stop libvirtd; then remove again"
        raise HostError(error.what, fix=fix) from None
    for report in reports:  # What stays for running domains stays for these as well.
        print(f"virt-warden: {report}", file=sys.stderr)
    if not was_enrolled:
        return "is as it was"
    return "is unenrolled" + (", from its next start on" if domain.isActive() else "")


def _unenrol_files(paths: Paths) -> int:
    written, failed = unenrol_files(paths)
    for path in written:
        print(f"libvirt does not run: unenrolled in {path}")
    for failure in failed:
        print(f"virt-warden: left as it is: {failure}", file=sys.stderr)
    return 0

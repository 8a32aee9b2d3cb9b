# SPDX-License-Identifier: GPL-2.0-or-later
"""`virt-warden recover`: undo what a crash, a power cut or a failed undo left behind."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial

import libvirt

from virtwarden import recovery
from virtwarden.adoption import work
from virtwarden.changes import journal
from virtwarden.changes.accounts import ledger
from virtwarden.errors import WardenError
from virtwarden.libvirtd.connection import connected, find, rests
from virtwarden.paths import Paths
from virtwarden.system.ledger import owners_on_disk


def arguments(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--ledger",
        action="store_true",
        help="write the ledger of used uids again, from all that is left of it, the domains' users"
        " and the owners of all files",
    )
    which.add_argument("domains", nargs="*", default=[], metavar="DOMAIN", help="default: all")


def run(options: argparse.Namespace, paths: Paths) -> int:
    return _rebuild_ledger(paths) if options.ledger else recover(paths, options.domains)


def _rebuild_ledger(paths: Paths) -> int:
    from virtwarden.policy import load

    uid_range = load(paths).rules_for("").uid_range
    lowest, highest = uid_range
    print(f"searching all local files for owners from {lowest} to {highest} …", flush=True)
    added = ledger(paths).rebuild(owners_on_disk(uid_range))
    print(f"{paths.ledger} is written again; added: {', '.join(map(str, added)) or 'nothing'}")
    return 0


def recover(paths: Paths, names: list[str]) -> int:
    """Undo what is left of the named domains, or of all, that do not run. Gives the exit code."""
    failed = False
    with connected() as connection:
        known = journal.known_domains(paths)
        for domain in [_uuid(connection, known, name) for name in names] if names else known:
            if names and not rests(connection, domain):
                print(f"{domain} runs: nothing to recover")
            failed |= not _recover_one(paths, domain, partial(rests, connection, domain))
    for undone in work.recover(paths) if not names else ():
        print(undone)
    return int(failed)


def _uuid(connection: libvirt.virConnect, known: list[str], name: str) -> str:
    """A domain that libvirt has forgotten can still be named by its UUID."""
    return name if name in known else str(find(connection, name).UUIDString())


def _recover_one(paths: Paths, domain: str, rests: Callable[[], bool]) -> bool:
    """Undo what is left of a domain that does not run. Gives whether everything was undone."""
    try:
        for line in recovery.recovered(paths, domain, rests):
            print(line)
    except WardenError as error:
        print(f"virt-warden: {domain}: {error}", file=sys.stderr)
        return False
    return True

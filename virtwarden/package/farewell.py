# SPDX-License-Identifier: GPL-2.0-or-later
"""What stays on the host when virt-warden is removed while guarded domains run.

When these domains stop, a hook must still undo what was done for them. What libvirt saves of them
meanwhile names the wrapper. So `leave` copies this code below /var/lib, and installs a hook of a
few lines that calls it and refuses nothing. The copy removes itself after the last such domain. It
includes the libraries, because apt's autoremove removes what only virt-warden depended on.
"""

from __future__ import annotations

import ctypes
import importlib
import re
import shutil
import sys
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path
from typing import BinaryIO

from virtwarden import log
from virtwarden.changes import journal
from virtwarden.errors import WardenError
from virtwarden.package import hookfile
from virtwarden.paths import Paths
from virtwarden.system import files, users
from virtwarden.system.run import run

# What undoing needs beyond the standard library. sh runs commands, nftables removes rules, posix1e
# sets ACLs. lxml reads a domain's XML, and brings those of its libraries that nothing else on a
# host of VMs needs.
_MODULES = ("sh", "nftables", "posix1e", "lxml")
_SHARED_OBJECTS = ("libxslt.so.1", "libexslt.so.0")
_NOT_NEEDED = ("__pycache__", "html", "includes", "isoschematron", "*.pxi", "*.pyx", "*.h")
_UUID = re.compile(rb"<uuid>([0-9a-f-]{36})</uuid>")
# A managed save begins with its XML.
_READ_BYTES = 4 * 1024 * 1024
_PURGE = "purge.sh"
_PURGE_WANTED = "purge-wanted"


def needed(paths: Paths) -> list[str]:
    """Why something must stay, a sentence for each reason.

    A domain's files are not given back yet, or what libvirt saved of a domain names the wrapper.
    """
    reasons = [
        f"domain {domain} still runs guarded, or its changes could not be undone"
        for domain in journal.known_domains(paths)
        if _has_run_journal(paths, domain)
    ]
    return reasons + [f"{path} names virt-warden's wrapper" for path in _references(paths)]


def runs(domain: str) -> bool:
    """Whether any process of the domain's own user lives; asks the kernel, not libvirt."""
    account = users.account_of(domain)
    return account is not None and users.has_processes(account.uid)


def leave(paths: Paths) -> None:
    """Copy everything needed out of the package, and install the hook that calls the copy.

    dpkg is about to remove the package.
    """
    shutil.rmtree(paths.farewell, ignore_errors=True)
    files.private_directory(paths.farewell)
    _copy(paths.share / "virtwarden", paths.farewell)
    for name in _MODULES:
        # importlib.util.find_spec fails: once imported, sh is in sys.modules without its spec.
        found = PathFinder.find_spec(name)
        if found is not None and found.origin:
            origin = Path(found.origin)
            _copy(origin.parent if origin.name == "__init__.py" else origin, paths.farewell)
    for library in _mapped_by_lxml():
        _copy(library, paths.farewell)
    for name in ("farewell.py", _PURGE):
        _copy(paths.share / name, paths.farewell)
    hookfile.place(paths, paths.share / "hooks" / "farewell")


def withdraw(paths: Paths) -> None:
    """Remove the copy, since virt-warden is installed again: its own hook undoes what is left."""
    shutil.rmtree(paths.farewell, ignore_errors=True)
    _remove_links(paths)


def main(arguments: list[str], stdin: BinaryIO, stdout: BinaryIO, paths: Paths) -> int:
    """Answer libvirt's call `NAME OP SUBOP EXTRA`, with the domain's XML on stdin.

    At `restore` the XML on stdout replaces the saved one. Gives 0: it refuses nothing.
    """
    op = arguments[1] if len(arguments) > 1 else ""
    untrusted_xml = stdin.read(_READ_BYTES)
    if op == "restore":
        stdout.write(plain(untrusted_xml, paths))
        return 0
    found = _UUID.search(untrusted_xml)
    stopped = found[1].decode() if found else ""
    for domain in journal.known_domains(paths):
        if _has_run_journal(paths, domain) and (domain == stopped or not runs(domain)):
            _undo(paths, domain)
    if op == "release" and not needed(paths):
        _end(paths)
    return 0


def plain(untrusted_xml: bytes, paths: Paths) -> bytes:
    """A domain's XML as before it was enrolled, or nothing where it was not."""
    for name in _SHARED_OBJECTS:  # the linker then finds them as already loaded, dlopen(3)
        if (paths.farewell / name).exists():
            ctypes.CDLL(str(paths.farewell / name), mode=ctypes.RTLD_GLOBAL)
    from virtwarden.enrolment.enrol import unenrolled

    return unenrolled(untrusted_xml, paths) or b""


def _copy(source: Path, directory: Path) -> None:
    if source.is_dir():
        ignored = shutil.ignore_patterns(*_NOT_NEEDED)
        shutil.copytree(source, directory / source.name, ignore=ignored)
    else:
        shutil.copy(source, directory)


def _mapped_by_lxml() -> list[Path]:
    """The files of those shared objects in this process, under the names that it loads them by."""
    importlib.import_module("lxml.etree")
    mapped = {Path(line.split()[-1]) for line in Path("/proc/self/maps").read_text().splitlines()}
    directories = {path.parent for path in mapped if path.name.startswith(_SHARED_OBJECTS)}
    found = [directory / name for directory in directories for name in _SHARED_OBJECTS]
    return [path for path in found if path.exists()]


def _has_run_journal(paths: Paths, domain: str) -> bool:
    return (paths.domain_state(domain) / "run.journal").exists()


def _references(paths: Paths) -> list[Path]:
    """libvirt's files that name the wrapper as emulator.

    Those in its directory in /run are of running domains, of which some are not guarded.
    """
    wrapper = f"<emulator>{paths.wrapper_dir}/".encode()
    kept = paths.libvirt_state
    candidates = [
        *paths.libvirt_config.glob("*.xml"),
        *paths.libvirt_run.glob("*.xml"),
        *kept.glob("save/*.save"),
        *kept.glob("snapshot/*/*.xml"),
        *kept.glob("checkpoint/*/*.xml"),
    ]
    return [path for path in candidates if wrapper in _beginning(path)]


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_READ_BYTES)
    except OSError:
        return b""


def _undo(paths: Paths, domain: str) -> None:
    try:
        with journal.locked(paths, domain):
            reports = journal.undo(paths, domain)
    except WardenError as error:
        log.event(log.Level.ERROR, "failed", uuid=domain, reason=error)
        return
    for report in reports:
        log.event(log.Level.WARNING, "left-alone", uuid=domain, reason=report)


def _end(paths: Paths) -> None:
    hookfile.take_away(paths)
    _remove_links(paths)
    if (paths.farewell / _PURGE_WANTED).exists():
        # The purge looks at all of the host's files, and libvirt must not wait for that.
        purge = f". {paths.farewell / _PURGE} && purge 2>&1 | logger -t virt-warden"
        script = f"exec setsid --fork sh -c '{purge}' </dev/null >/dev/null 2>&1"
        run("/bin/sh", "-c", script)
    else:
        shutil.rmtree(paths.farewell)


def _remove_links(paths: Paths) -> None:
    """Remove the symlinks to QEMU that the package made last, in the place of the wrappers."""
    for directory in (paths.emulators, paths.wrapper_dir):
        for link in directory.glob("qemu-system-*"):
            if link.is_symlink():
                link.unlink()
        with suppress(OSError):
            directory.rmdir()


def call() -> int:
    """`main` as the hook that stays calls it."""
    return main(sys.argv[1:], sys.stdin.buffer, sys.stdout.buffer, Paths())

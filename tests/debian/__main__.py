# SPDX-License-Identifier: GPL-2.0-or-later
"""`python3 -B -m tests.debian RELEASE COMMAND ARGUMENT…` runs COMMAND on that release of Debian.

The release lies in build/debian; what is installed there stays there for the next time. COMMAND
finds a copy of this checkout, with what is not committed yet, as its directory; it is gone at the
end, as is all that COMMAND started. Without a COMMAND the release is made, and what the tests need
is installed.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.debian import sources
from tests.debian.kept import key, locked, once
from tests.host.command import run
from tests.host.namespace import CHECKOUT, contained

RELEASES = ("bookworm", "trixie")
_STORE = CHECKOUT / "build" / "debian"
# What an admin who clones a repository has.
_PACKAGES = "ca-certificates,git,iproute2,make,procps"
_SECONDS = 600
# Its mounts and its processes: the network is this machine's, for apt.
_NAMESPACES = "-mp"


def main(arguments: list[str]) -> int:
    """Do as told; the exit code is COMMAND's."""
    parser = argparse.ArgumentParser(prog="tests.debian", description=__doc__)
    parser.add_argument("release", choices=RELEASES)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    told = parser.parse_args(arguments)
    root = _root(told.release)
    with locked(root.with_suffix(".used")):
        return _run_in(root, told.command or ["make", "needs-tests"])


def _root(codename: str) -> Path:
    """The release's root directory: Debian's essential packages, and the few of an admin's."""
    lines = sources.lines(codename)
    made_of = key(codename, _PACKAGES, *lines)
    return once(_STORE, f"{codename}-{made_of}", lambda path: _bootstrap(codename, lines, path))


def _bootstrap(codename: str, lines: Sequence[str], to: Path) -> None:
    run(
        "mmdebstrap",
        *("--quiet", "--mode=root", "--variant=minbase", "--format=directory"),
        *(f"--aptopt={line}" for line in sources.options()),
        f"--include={_PACKAGES}",
        codename,
        str(to),
        *lines,
        seconds=_SECONDS,
    )


def _run_in(root: Path, command: Sequence[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="warden-debian-", dir="/dev/shm") as scratch:
        archive = Path(scratch) / "checkout.tar"
        _pack(archive)
        enter = str(Path(__file__).with_name("enter"))
        return contained(_NAMESPACES, [enter, str(root), str(archive), *command])


def _pack(archive: Path) -> None:
    """What git has of this checkout and what it does not ignore, as it is now."""
    listed = run(
        *("git", "-c", f"safe.directory={CHECKOUT}", "-C", str(CHECKOUT)),
        *("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"),
    ).stdout
    with tarfile.open(archive, "w") as tar:
        for name in filter(None, listed.split("\0")):
            if (CHECKOUT / name).exists():
                tar.add(CHECKOUT / name, name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

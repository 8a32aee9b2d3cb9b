# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's packages: python3-apt tells which updates wait, debsecan which flaws they fix."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cmp_to_key
from pathlib import Path

from virtwarden.errors import HostError
from virtwarden.system.run import run

DEBSECAN = "/usr/bin/debsecan"
# The packages whose flaws a guest can reach.
_SOURCES = ("qemu", "libvirt", "linux", "virt-warden", "edk2", "seabios", "cryptsetup", "gnutls28")
_OS_RELEASE = Path("/etc/os-release")


def upgradable() -> list[str]:
    """The packages that a guest can reach and that apt can upgrade, each with both versions.

    Raises HostError where apt does not work.
    """
    try:
        import apt
    except ImportError:
        raise HostError("apt cannot be asked", fix="apt install python3-apt") from None
    try:
        cache = apt.Cache()
    except SystemError as error:
        raise HostError(f"apt cannot be asked: {error}", fix="apt update") from None
    ours = [p for p in cache if p.installed and _is_of_interest(p.name, p.installed.source_name)]
    return sorted(
        f"{package.installed} to {package.candidate}" for package in ours if package.is_upgradable
    )


def _is_of_interest(package: str, source: str) -> bool:
    return _runs(package) and (source in _SOURCES or source.startswith("linux-signed"))


def _runs(package: str) -> bool:
    """False for the kernel's headers, tools and documents: of its packages only the images run."""
    return not package.startswith("linux-") or package.startswith("linux-image-")


def fixed_flaws() -> list[str]:
    """`CVE package` of each flaw that an update would close. Raises HostError."""
    if not Path(DEBSECAN).exists():
        raise HostError("debsecan is not installed", fix="apt install debsecan")
    listed = run(DEBSECAN, "--suite", _suite(), "--only-fixed", "--format", "summary", timeout=60)
    names = tuple(f"{source}-" for source in _SOURCES) + _SOURCES
    flaws = []
    for line in listed.splitlines():
        cve, _, rest = line.partition(" ")
        package = rest.split(" ")[0]
        if package.startswith(names) and _runs(package):
            flaws.append(f"{cve} {package}")
    return flaws


def _suite() -> str:
    lines = _OS_RELEASE.read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    return found.get("VERSION_CODENAME", "GENERIC")


def newest_version(versions: Iterable[str]) -> str:
    """The highest version in Debian's order (deb-version(7)); empty where there is none.

    Raises HostError where apt's library is missing.
    """
    try:
        import apt_pkg
    except ImportError:
        raise HostError("versions cannot be compared", fix="apt install python3-apt") from None
    apt_pkg.init_system()
    return max(versions, key=cmp_to_key(apt_pkg.version_compare), default="")

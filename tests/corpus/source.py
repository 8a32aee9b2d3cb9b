# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's source of the Debian at hand, as apt fetches and verifies it."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_MIRROR = "http://deb.debian.org/debian"


def unpacked(directory: Path) -> Path:
    """The unpacked source of this release's libvirt, below a directory; fetched where missing."""
    for found in directory.glob("libvirt-*/tests"):
        return found.parent
    _fetch(directory)
    (archive,) = directory.glob("libvirt_*.orig.tar.*z")
    tar = ["tar", "--extract", "--no-same-owner", "--directory", str(directory)]
    subprocess.run([*tar, "--file", str(archive)], check=True)
    archive.unlink()
    return unpacked(directory)


def _fetch(directory: Path) -> None:
    """The archive is compared with the checksums that Debian signed."""
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    (directory / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (directory / "cache").mkdir(exist_ok=True)
    sources = directory / "sources.list"
    sources.write_text(f"deb-src [signed-by={_KEYRING}] {_MIRROR} {release} main\n")
    options = [
        f"--option={name}={value}"
        for name, value in (
            ("Dir::Etc::sourcelist", sources.absolute()),
            ("Dir::Etc::sourceparts", "-"),
            ("Dir::State::lists", (directory / "lists").absolute()),
            ("Dir::Cache", (directory / "cache").absolute()),
            ("APT::Sandbox::User", "root"),
        )
    ]
    subprocess.run(["apt-get", "--quiet", *options, "update"], check=True)
    fetch = ["apt-get", "--quiet", *options, "source", "--download-only", "--tar-only", "libvirt"]
    subprocess.run(fetch, check=True, cwd=directory)

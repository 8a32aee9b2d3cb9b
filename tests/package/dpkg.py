# SPDX-License-Identifier: GPL-2.0-or-later
"""The Debian package and dpkg, as an admin uses them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.host.command import run

_NAME = "virt-warden"
# No fsync, which only costs here; no question at the terminal.
_DPKG = ("dpkg", "--force-unsafe-io", "--force-confold")


def build(checkout: Path, directory: Path) -> Path:
    """Run `make deb`'s script; the package that came out."""
    run("sh", str(checkout / "packaging" / "deb.sh"), str(directory))
    (deb,) = directory.glob("*.deb")
    return deb


@dataclass(frozen=True)
class Package:
    """virt-warden's package. Each act gives what dpkg and the package's scripts said."""

    deb: Path

    def install(self, deb: Path | None = None) -> str:
        """Install or upgrade."""
        return _said(run(*_DPKG, "--install", str(deb or self.deb)))

    def remove(self) -> str:
        """Remove; fails the test where the package's scripts do."""
        return _said(run(*_DPKG, "--remove", _NAME))

    def purge(self, *, forget_uids: bool = False) -> str:
        """Purge; harmless where it is not there."""
        environment = ["env", "VIRT_WARDEN_FORGET_UIDS=1"] if forget_uids else []
        return _said(run(*environment, *_DPKG, "--purge", _NAME))

    def refusal_to_remove(self) -> str:
        """Remove, which fails; what was said."""
        done = run(*_DPKG, "--remove", _NAME, check=False)
        assert done.returncode != 0, "it was removed"
        return _said(done)

    def status(self) -> str:
        """How dpkg sees it: `install ok installed`, or an empty string where it is unknown."""
        asked = run("dpkg-query", "--show", "--showformat=${Status}", _NAME, check=False)
        return asked.stdout.strip()

    def with_version(self, version: str) -> Path:
        """The same package under another version."""
        with tempfile.TemporaryDirectory() as scratch:
            tree = Path(scratch) / "tree"
            run("dpkg-deb", "--raw-extract", str(self.deb), str(tree))
            control = tree / "DEBIAN" / "control"
            lines = control.read_text().splitlines()
            control.write_text(
                "".join(
                    f"Version: {version}\n" if line.startswith("Version:") else f"{line}\n"
                    for line in lines
                )
            )
            built = Path(scratch) / "other.deb"
            run("dpkg-deb", "-Znone", "--build", str(tree), str(built))
            kept = self.deb.with_name(f"{_NAME}_{version}.deb")
            shutil.move(built, kept)
        return kept


def _said(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr

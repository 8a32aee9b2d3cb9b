# SPDX-License-Identifier: GPL-2.0-or-later
"""`python3 -B -m tests.libvirt` runs these tests, a file in a private host, a host for each CPU.

Most of a start is spent waiting for one process after another, so that two hosts at once take
little more than half the time of one. With `--by-release` those files alone are run whose promises
turn on what one release of Debian does otherwise than another; with `--again` a file that failed is
run once more, by itself. Other options are handed on to pytest.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests import files

_BY_RELEASE = {
    "calls": "QEMU and its libraries make other system calls",
    "encryption": "libvirt deletes saved memory, or keeps it",
    "explain": "what libvirt writes of a domain",
    "frames": "nftables and ebtables list rules in other words",
    "gate": "likewise",
    "install": "python3-sh gives back a command or its output",
    "keys": "systemd's agents ask in another way",
    "lifecycle_live": "libvirt deletes saved memory, or keeps it",
    "listing": "nftables and ebtables list rules in other words",
    "nft": "likewise, and kernels keep a chain whose tap is gone",
    "pki": "virt-pki-validate asks for other modes",
    "process": "QEMU answers EPERM, or ends",
    "reach": "nftables and ebtables list rules in other words",
    "remote": "libvirt has daemons of other names",
    "run": "python3-sh waits for a command in other words",
    "sandbox": "QEMU opens other files",
    "spice": "SPICE is a module of QEMU's or a part of it",
    "tap_chains": "nftables lists rules in other words",
    "viewers": "remote-viewer trusts by other files",
    "virt_install": "virt-install makes other domains",
}
"""The files that were seen to pass on one release and fail on another, or may, and why."""


def main(options: list[str], *besides: Path) -> int:
    """Run the files, and these besides; 0 where all passed."""
    here = Path(__file__).parent
    chosen = sorted(here.glob("test_*.py"))
    if "--by-release" in options:
        options = [option for option in options if option != "--by-release"]
        chosen = [here / f"test_{name}.py" for name in _BY_RELEASE]
    private_host = (*files.PYTHON, "tests.host", "--")
    return files.run(dict.fromkeys([*chosen, *besides], ""), private_host, options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

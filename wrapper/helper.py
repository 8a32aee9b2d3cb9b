#!/usr/bin/python3 -IS
# SPDX-License-Identifier: GPL-2.0-or-later
"""/usr/lib/virt-warden/swtpm and swtpm_setup: the entry script of tpm.py.

libvirt starts it by a symlink in bin/, which is first on libvirt's PATH. As emulator.py, it is all
that Python compiles each time.
"""

import sys

sys.path.insert(0, __file__.rpartition("/")[0].removesuffix("/bin") or "/")
sys.dont_write_bytecode = True

try:
    from tpm import main
except ImportError as error:
    sys.exit(
        f"virt-warden refuses this TPM: its wrapper's files are not all there ({error}); fix:"
        " install virt-warden again"
    )
main(sys.argv)

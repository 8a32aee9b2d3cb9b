#!/usr/bin/python3 -IS
# SPDX-License-Identifier: GPL-2.0-or-later
"""/usr/lib/virt-warden/qemu-system-ARCH, an <emulator>: the entry script of qemu_system.py.

Python compiles a script each time it runs, and an import only once. libvirt starts this script by
its own path, or by that of a symlink in bin/, which is first on libvirt's PATH. The other files are
beside it, and only root can write there.
"""

import sys

sys.path.insert(0, __file__.rpartition("/")[0].removesuffix("/bin") or "/")
sys.dont_write_bytecode = True

try:
    from qemu_system import main
except ImportError as error:
    sys.exit(
        f"virt-warden refuses this start: its wrapper's files are not all there ({error}); fix:"
        " install virt-warden again, or 'virt-warden unenrol' the domain to run it without"
    )
main(sys.argv)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian releases, each in a directory, in which anything of this checkout can be run.

    sudo /usr/bin/python3 -B -m tests.debian trixie make test

The release has its own libvirt, QEMU, nftables and Python; the kernel is this machine's.
"""

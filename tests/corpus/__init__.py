# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's own test data, run through what reads domains and command lines: `make corpus`."""

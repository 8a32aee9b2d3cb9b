# SPDX-License-Identifier: GPL-2.0-or-later
"""virt-warden: every virtual machine in its own cell."""

__version__ = "0.1.0"

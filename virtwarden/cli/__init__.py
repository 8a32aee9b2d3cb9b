# SPDX-License-Identifier: GPL-2.0-or-later
"""virt-warden's commands, one module each."""

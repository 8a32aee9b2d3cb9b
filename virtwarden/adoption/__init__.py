# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk in the clear is moved into a LUKS container, in steps that a kill cannot undo.

What was reached is on the disk (luks/adoption.py) before the next step begins. Until the copy is
compared with the former disk, byte for byte, nothing of that disk, and nothing in the domain's XML,
is altered.
"""

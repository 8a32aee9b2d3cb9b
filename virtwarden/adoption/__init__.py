# SPDX-License-Identifier: GPL-2.0-or-later
"""Moves a disk in the clear into a LUKS container, in steps that survive a kill.

Before a step begins, the result of the last one is on the disk (luks/adoption.py). Neither the
former disk nor the domain's XML changes before the copy is compared with that disk, byte for byte.
"""

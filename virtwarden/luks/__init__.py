# SPDX-License-Identifier: GPL-2.0-or-later
"""LUKS containers: which disks are in one, how to make one, and how far an adoption has come."""

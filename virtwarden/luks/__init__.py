# SPDX-License-Identifier: GPL-2.0-or-later
"""LUKS containers: which disks are such, how they are made, and how far an adoption has come."""

# SPDX-License-Identifier: GPL-2.0-or-later
"""Compares the host and each VM with the threat model, item by item (docs/audit.md).

A check is a function that gives an Item for each thing that it looked at, good or bad. collect.py
has the list of checks, and report/ prints the items.
"""

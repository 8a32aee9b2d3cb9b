# SPDX-License-Identifier: GPL-2.0-or-later
"""How this host's libvirt is managed from elsewhere, and how to set that up.

recipes.py says what to write for each of the three ways. setup.py follows a recipe or undoes it.
edits.py keeps what was there before. audit/remote.py checks the result.
"""

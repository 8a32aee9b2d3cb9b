# SPDX-License-Identifier: GPL-2.0-or-later
"""How this host's libvirt is managed from elsewhere, and how that is set up.

recipes.py says what to write for each of the three ways in, setup.py follows it or takes it back,
edits.py keeps what was there; audit/remote.py looks how it stands.
"""

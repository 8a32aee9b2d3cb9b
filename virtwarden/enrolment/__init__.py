# SPDX-License-Identifier: GPL-2.0-or-later
"""What a domain's XML is given, and gets back: its user, its emulator, its console passwords."""

# SPDX-License-Identifier: GPL-2.0-or-later
"""What commands have in common of what a terminal shows and asks."""

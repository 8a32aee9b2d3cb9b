# SPDX-License-Identifier: GPL-2.0-or-later
"""What the Debian package and `make install` do to a host beyond placing files, and undo again."""

# SPDX-License-Identifier: GPL-2.0-or-later
"""The network of the host itself: how it is, how it should be, and the files that make it so."""

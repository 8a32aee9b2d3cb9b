# SPDX-License-Identifier: GPL-2.0-or-later
"""A private host: a machine of its own for a test or the demo, in which nothing real is touched."""

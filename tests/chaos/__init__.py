# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts, stops, kills and broken files at once, by chance; at the end the host is as it was."""

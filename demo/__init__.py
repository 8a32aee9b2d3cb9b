# SPDX-License-Identifier: GPL-2.0-or-later
"""`make demo`: two virtual machines, each in its own cell, and what an admin wants to see of it."""

# SPDX-License-Identifier: GPL-2.0-or-later
"""The guards, each one protection; `lifecycle.GUARDS` has their order."""

# SPDX-License-Identifier: GPL-2.0-or-later
"""Two small authorities, one for consoles and one for remote administration (docs/pki.md).

The people who may see consoles and those who may manage the host are not the same: a certificate of
one authority opens nothing of the other's. No authority's key is ever on the disk in the clear.
"""

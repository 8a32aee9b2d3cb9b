# SPDX-License-Identifier: GPL-2.0-or-later
"""Two small CAs, one for consoles and one for remote administration (docs/pki.md).

The people who may see consoles and the people who may manage the host are not the same: no
certificate of one CA is valid for the other. Neither CA has its key in the clear on the disk.
"""

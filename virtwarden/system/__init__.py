# SPDX-License-Identifier: GPL-2.0-or-later
"""One file an outside thing: what virt-warden asks of the kernel and of the host's tools.

Nothing here knows of domains or of policies.
"""

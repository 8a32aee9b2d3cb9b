# SPDX-License-Identifier: GPL-2.0-or-later
"""How a console's ticket is given out: who asks, who may, and what the two ends say.

tickets.py is the service that gives it, asking.py the operator's own end, which needs no libvirt.
"""

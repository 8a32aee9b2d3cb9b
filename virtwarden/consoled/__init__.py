# SPDX-License-Identifier: GPL-2.0-or-later
"""How operators get console tickets: who asks, who may, and what the two ends say.

tickets.py is the service that gives the ticket. asking.py is the operator's end, which needs no
libvirt.
"""

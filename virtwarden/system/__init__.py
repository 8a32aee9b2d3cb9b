# SPDX-License-Identifier: GPL-2.0-or-later
"""What virt-warden asks of the kernel and of the host's tools: one module for each of them.

No module here knows of domains or of policies.
"""

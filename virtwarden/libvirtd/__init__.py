# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt, asked and told: for the commands and the service.

No hook comes here: libvirt waits for it, and would not answer.
"""

# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls libvirt, for the commands and the service.

No hook imports this: libvirt waits for the hook, and would not answer it.
"""

# SPDX-License-Identifier: GPL-2.0-or-later
"""Watches what was promised to running VMs, and puts back what is gone.

virt-warden.service runs it. No promise needs it: what the kernel was told stays without it, as long
as nobody takes it away.
"""

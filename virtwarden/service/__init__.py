# SPDX-License-Identifier: GPL-2.0-or-later
"""virt-warden.service: answers libvirt's hook fast, and keeps the domains enrolled.

No start depends on it. Without it the hook does its work by itself (ask.py), and an admin enrols
domains by hand. It has two processes, so that a libvirt that hangs delays no hook. The first
process answers hooks and never speaks with libvirt. Its child listens to libvirt.
"""

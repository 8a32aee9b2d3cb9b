# SPDX-License-Identifier: GPL-2.0-or-later
"""virt-warden.service: answers libvirt's hook fast, and keeps the domains enrolled.

No start depends on it: without it the hook does its work by itself (ask.py), and what is to be
enrolled is enrolled by hand. Two processes, so that libvirt, where it hangs, holds up no hook: the
first answers hooks and never speaks with libvirt, its child listens to libvirt.
"""

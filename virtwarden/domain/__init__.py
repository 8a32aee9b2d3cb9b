# SPDX-License-Identifier: GPL-2.0-or-later
"""What libvirt says of a domain: its XML as a frozen value, each field with its XPath."""

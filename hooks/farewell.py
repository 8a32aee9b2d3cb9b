# SPDX-License-Identifier: GPL-2.0-or-later
"""/var/lib/virt-warden/farewell: the entry script of virtwarden/package/farewell.py."""

import sys

sys.path.insert(0, "/var/lib/virt-warden/farewell")
sys.dont_write_bytecode = True

from virtwarden.package.farewell import call  # noqa: E402 - the path above must come first

sys.exit(call())

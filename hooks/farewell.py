"""/var/lib/virt-warden/farewell: the door; virtwarden/package/farewell.py is the room."""

import sys

sys.path.insert(0, "/var/lib/virt-warden/farewell")
sys.dont_write_bytecode = True

from virtwarden.package.farewell import call  # noqa: E402 - the path above must come first

sys.exit(call())

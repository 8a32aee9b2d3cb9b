#!/usr/bin/python3 -IS
"""/etc/libvirt/hooks/qemu, and hooks/network: the door; virtwarden/door.py is behind it."""

import sys

SHARE = "/usr/share/virt-warden"
if "/hooks/network" in sys.argv[0] and sys.argv[2:3] != ["port-created"]:
    sys.exit(0)  # what else befalls a network, under names that steps of domains have too
sys.path.insert(0, SHARE)
sys.dont_write_bytecode = True

try:
    from virtwarden.door import main

    code = main(sys.argv[1:])
except ImportError as error:
    import os  # which a hook that is whole has no need to wait for

    if not os.path.isdir(SHARE):  # noqa: PTH112 - virt-warden was removed, this was left
        sys.exit(0)
    # libvirt shows this line to whoever started the domain. Without us, nothing is guarded.
    sys.exit(
        f"virt-warden refuses {sys.argv[1:2]}: its files are not all there ({error}); to mend:"
        " install virt-warden again, or remove /etc/libvirt/hooks/qemu"
        if sys.argv[2:3] in (["prepare"], ["start"])
        else 0
    )
sys.exit(code)

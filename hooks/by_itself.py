"""What the hook, qemu.pl, has done where virt-warden.service does not answer: the same."""

import sys

sys.path.insert(0, "/usr/share/virt-warden")
sys.dont_write_bytecode = True

try:
    from virtwarden.hook import main
except Exception as error:  # noqa: BLE001 - whatever a file that is there by half, or unreadable, raises
    # libvirt shows this line to whoever started the domain. Without us, nothing is guarded.
    sys.exit(
        f"virt-warden refuses {sys.argv[1:2]}: its files are not all there ({error!r}); to mend:"
        " install virt-warden again, or remove /etc/libvirt/hooks/qemu"
        if sys.argv[2:3] in (["prepare"], ["start"])
        else 0
    )
sys.exit(main(sys.argv[1:], sys.stdin.buffer, sys.stdout.buffer, sys.stderr))

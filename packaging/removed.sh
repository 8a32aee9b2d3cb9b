# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# To be called when virt-warden's files are gone.

removed() {
    # What libvirt knows of VMs that still run names the wrappers: QEMU itself takes their place,
    # until the hook that stays takes it away (virtwarden/package/farewell.py).
    [ -d /var/lib/virt-warden/farewell ] || return 0
    mkdir -p /usr/lib/virt-warden/bin
    for qemu in /usr/bin/qemu-system-*; do
        ln -sf "$qemu" /usr/lib/virt-warden/
        ln -sf "$qemu" /usr/lib/virt-warden/bin/
    done
}

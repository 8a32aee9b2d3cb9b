#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Removes virt-warden, installed by `make install`: first unenrols every domain. With --purge it also
# removes users and state, like the package's purge.
set -eu
cd "$(dirname "$0")/.."
for unit in packaging/systemd/*; do
    [ ! -d /run/systemd/system ] || systemctl disable --quiet --now "${unit##*/}" || :
    rm -f "/usr/lib/systemd/system/${unit##*/}"
done
for daemon in libvirtd virtqemud; do
    rm -f "/usr/lib/systemd/system/$daemon.service.d/virt-warden.conf"
    rmdir "/usr/lib/systemd/system/$daemon.service.d" 2>/dev/null || :
done
[ ! -x /usr/sbin/virt-warden ] || /usr/sbin/virt-warden package remove || {
    echo "not uninstalled: fix the above first, or a domain could no longer start" >&2
    exit 1
}
rm -rf /usr/share/virt-warden /usr/lib/virt-warden /usr/share/doc/virt-warden
rm -f /usr/sbin/virt-warden /usr/share/bash-completion/completions/virt-warden \
    /usr/share/polkit-1/rules.d/10-virt-warden.rules /usr/share/man/man[58]/virt-warden[-.]*
. packaging/removed.sh
removed
if [ "${1:-}" = --purge ]; then
    rm -f /etc/virt-warden/policy.toml /etc/pam.d/virt-warden
    rmdir /etc/virt-warden/policy.d /etc/virt-warden 2>/dev/null || :
    . packaging/purge.sh
    purge
else
    echo "left: /etc/virt-warden and /etc/pam.d/virt-warden (yours), /var/lib/virt-warden and the VMs'" \
        "users; packaging/uninstall.sh --purge removes them, except the ledger of used uids"
fi

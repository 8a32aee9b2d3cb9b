#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Put virt-warden onto this host; or only its files into $DESTDIR, out of which the Debian package
# is made. Nothing that an admin made is overwritten.
set -eu
umask 022
cd "$(dirname "$0")/.."
: "${DESTDIR:=}" "${PYTHON:=/usr/bin/python3}" "${ARCHES:=x86_64}"
: "${UNITS:=/usr/lib/systemd/system}"
share=$DESTDIR/usr/share/virt-warden
wrapper=$DESTDIR/usr/lib/virt-warden
policy=$DESTDIR/etc/virt-warden
doc=$DESTDIR/usr/share/doc/virt-warden

# A hook that lacks one of these refuses every start.
[ -n "$DESTDIR" ] || "$PYTHON" -c "import cryptography, jsonschema, libvirt, lxml, nftables, posix1e, sh" || {
    echo "not installed: a Python module is missing; fix: make needs" >&2
    exit 1
}

# An admin may edit these: what is there stays.
config() {
    [ -e "$2" ] || install -D -m 644 "$1" "$2"
}

# The VMs that are here before the first installation must start as they did.
first=
[ -e "$share" ] || first=--first
rm -rf "$share" "$doc"
find virtwarden -name '*.py' -exec install -D -m 644 {} "$share/{}" \;
install -m 644 policy/*schema.json packaging/purge.sh hooks/farewell.py "$share"
install -D -m 755 hooks/qemu.py "$share/hooks/qemu"
install -D -m 755 hooks/farewell.sh "$share/hooks/farewell"
for lines in usr.sbin.libvirtd usr.sbin.virtqemud abstractions/libvirt-qemu; do
    install -D -m 644 "packaging/apparmor/$lines" "$share/apparmor/$lines"
done
install -d "$share/selinux"
install -m 644 packaging/selinux/* "$share/selinux"
install -D -m 644 packaging/polkit/10-virt-warden.rules \
    "$DESTDIR/usr/share/polkit-1/rules.d/10-virt-warden.rules"
install -d "$wrapper"
install -m 644 wrapper/*.py "$wrapper"
rm "$wrapper/emulator.py" "$wrapper/helper.py"
for helper in swtpm swtpm_setup; do
    install -m 755 wrapper/helper.py "$wrapper/$helper"
done
for arch in $ARCHES; do
    install -m 755 wrapper/emulator.py "$wrapper/qemu-system-$arch"
done
install -D -m 755 packaging/virt-warden "$DESTDIR/usr/sbin/virt-warden"
install -D -m 644 packaging/completion.bash \
    "$DESTDIR/usr/share/bash-completion/completions/virt-warden"
PYTHON=$PYTHON DESTDIR=$DESTDIR packaging/man/install.sh
install -d "$DESTDIR$UNITS" "$policy/policy.d" "$doc/examples"
install -m 644 docs/* "$doc"
install -m 644 policy/examples/* "$doc/examples"
install -d "$doc/examples/notify.d"
install -m 755 packaging/notify/* "$doc/examples/notify.d"
install -m 644 packaging/systemd/* "$DESTDIR$UNITS"
for daemon in libvirtd virtqemud; do
    install -D -m 644 packaging/libvirt-path.conf "$DESTDIR$UNITS/$daemon.service.d/virt-warden.conf"
done
config policy/policy.toml "$policy/policy.toml"
config packaging/pam "$DESTDIR/etc/pam.d/virt-warden"

# dpkg's package is compiled, its units enabled, its hook placed where it is installed.
[ -z "$DESTDIR" ] || exit 0
"$PYTHON" -m compileall -q "$share/virtwarden" "$wrapper"
/usr/sbin/virt-warden package configure $first
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    for unit in packaging/systemd/*; do
        # What something else starts is neither enabled nor started.
        grep -q '^\[Install\]' "$unit" || continue
        systemctl enable --quiet "${unit##*/}"
        systemctl restart "${unit##*/}"
    done
fi
echo "virt-warden is installed. Its policy: /etc/virt-warden/policy.toml"

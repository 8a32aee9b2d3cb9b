#!/bin/sh
# Put virt-warden onto a host, or into $DESTDIR. Nothing that an admin made is overwritten.
set -eu
umask 022
cd "$(dirname "$0")/.."
: "${DESTDIR:=}" "${PYTHON:=/usr/bin/python3}" "${ARCHES:=x86_64}"
share=$DESTDIR/usr/share/virt-warden
wrappers=$DESTDIR/usr/lib/virt-warden
hooks=$DESTDIR/etc/libvirt/hooks
policy=$DESTDIR/etc/virt-warden

# A hook that lacks one of these refuses every start.
[ -n "$DESTDIR" ] || "$PYTHON" -c "import cryptography, jsonschema, libvirt, lxml, posix1e, sh" || {
    echo "not installed: a Python module is missing; to mend: make needs" >&2
    exit 1
}

rm -rf "$share/virtwarden"
install -d "$share" "$wrappers" "$policy/policy.d" "$DESTDIR/usr/sbin"
find virtwarden -name '*.py' -exec install -D -m 644 {} "$share/{}" \;
# dpkg's packages are compiled where they are installed.
[ -n "$DESTDIR" ] || "$PYTHON" -m compileall -q "$share/virtwarden"
install -m 644 policy/schema.json "$share/schema.json"
install -m 644 policy/audit.schema.json "$share/audit.schema.json"
[ -e "$policy/policy.toml" ] || install -m 644 policy/policy.toml "$policy/policy.toml"
install -m 755 packaging/virt-warden "$DESTDIR/usr/sbin/virt-warden"
install -D -m 755 hooks/qemu.py "$share/hooks/qemu"
[ -e "$DESTDIR/etc/pam.d/virt-warden" ] ||
    install -D -m 644 packaging/pam/virt-warden "$DESTDIR/etc/pam.d/virt-warden"
for arch in $ARCHES; do
    install -m 755 wrapper/qemu_system.py "$wrappers/qemu-system-$arch"
done

[ -z "$DESTDIR" ] || exit 0
# A hook of the admin's own stays, and ours goes beside it (libvirt 6.5 and later run both).
if [ ! -e "$hooks/qemu" ] || grep -q virt-warden "$hooks/qemu"; then
    install -D -m 755 hooks/qemu.py "$hooks/qemu"
else
    install -D -m 755 hooks/qemu.py "$hooks/qemu.d/virt-warden"
    echo "kept $hooks/qemu; ours is $hooks/qemu.d/virt-warden"
fi

# libvirt looks for hooks only when it starts.
if [ -d /run/systemd/system ]; then
    systemctl try-restart libvirtd.service virtqemud.service 2>/dev/null || true
fi
echo "virt-warden is installed. Now: virt-warden enrol --all"
